#include "backend/cuda/vendor/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void *open_one(const char *file, char *why, size_t why_bytes) {
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library) return library;
    const char *text = dlerror(); /* most begin with the file */
    const size_t used = strlen(why);
    const char *comma = used ? "; " : "";
    if (!text) text = "the loader does not say why";
    if (strstr(text, file))
        snprintf(why + used, why_bytes - used, "%s%s", comma, text);
    else
        snprintf(why + used, why_bytes - used, "%s%s: %s", comma, file, text);
    return NULL;
}

void *tw_library_open(const char *file, const char *const *names, const tw_library_symbol *symbols,
                      int n_symbols, void *table, char *why, size_t why_bytes) {
    const char *const only[] = {file, NULL};
    void *library = NULL;
    why[0] = 0;
    const char *const *name = file ? only : names;
    while (*name && !(library = open_one(*name, why, why_bytes))) name++;
    if (!library) return NULL;
    for (int i = 0; i < n_symbols; i++) {
        void *const found = dlsym(library, symbols[i].name);
        if (!found) {
            snprintf(why, why_bytes, "%s: has no %s", *name, symbols[i].name);
            dlclose(library);
            return NULL;
        }
        memcpy((char *)table + symbols[i].offset, &found, sizeof found);
    }
    why[0] = 0;
    return library;
}
