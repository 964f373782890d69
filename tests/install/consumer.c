#include <stdio.h>
#include <tweedie/tweedie.h>

int main(void) {
    tw_context *ctx = NULL;
    if (tw_context_create(NULL, &ctx) != TW_OK) {
        fprintf(stderr, "%s\n", tw_context_error(NULL));
        return 1;
    }
    printf("tweedie %s on %s\n", tw_version(), tw_context_device_name(ctx));
    tw_context_free(ctx);
    return 0;
}
