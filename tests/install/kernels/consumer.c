/* The installed kernels from C: launchers of several sources are there, and say what is wrong. */
#include <kernels.h>
#include <stdio.h>
#include <string.h>

static int refuses(const char *name, twk_status status, const char *word) {
    const int right = status == TWK_BAD_ARGUMENT && strstr(twk_error_text(), word) != NULL;
    if (!right) printf("%s: %d, \"%s\"\n", name, (int)status, twk_error_text());
    return right;
}

int main(void) {
    const int right = refuses("ddim", twk_ddim_update(NULL, NULL), "no arguments") &&
                      refuses("conv", twk_conv_forward(NULL, NULL), "conv") &&
                      refuses("gemm", twk_gemm(NULL, NULL), "matrix product") &&
                      refuses("attention", twk_attention_forward(NULL, NULL), "attention") &&
                      refuses("adamw", twk_adamw(NULL, NULL), "no arguments");
    if (right) printf("%s\n", twk_error_text());
    return !right;
}
