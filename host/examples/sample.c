/* Draws eight samples from a model directory into one picture: sample MODEL OUT.ppm */
#include <stdio.h>
#include <stdlib.h>

#include <tweedie/tweedie.h>

#define TRY(call)                                                                                  \
    if ((call) != TW_OK) return fprintf(stderr, "%s\n", tw_context_error(ctx)), 1

int main(int argc, char **argv) {
    tw_context *ctx = NULL;
    tw_model *unet = NULL;
    tw_sampler *sampler = NULL;
    tw_model_info info = {.size = sizeof info};
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    if (argc != 3) return fprintf(stderr, "usage: sample MODEL OUT.ppm\n"), 2;

    TRY(tw_context_create(NULL, &ctx));
    TRY(tw_model_load(ctx, argv[1], NULL, &unet));
    TRY(tw_model_get_info(unet, &info));
    options.steps = 10; /* of DDIM */
    options.seed = 7;
    options.clipping = TW_CLIPPING_RANGE;
    TRY(tw_sampler_create(unet, &options, &sampler));
    const int64_t height = 8 * info.shape[0], width = info.shape[1], channels = info.shape[2];
    float *images = calloc((size_t)(height * width * channels), sizeof *images);
    FILE *out = fopen(argv[2], "wb");
    if (!images || !out) return perror(argv[2]), 1;
    TRY(tw_sampler_run(sampler, 8, NULL, NULL, images)); /* 8,H,W,C in [-1,1] */
    fprintf(out, "P6\n%d %d\n255\n", (int)width, (int)height);
    for (int64_t i = 0; i < height * width * 3; i++) /* grey has one channel, a picture three */
        fputc((int)(127.5f * images[i / 3 * channels + i % 3 % channels] + 128.0f), out);
    if (fclose(out) != 0) return perror(argv[2]), 1;
    free(images);
    tw_sampler_free(sampler);
    tw_model_free(unet);
    tw_context_free(ctx);
    return 0;
}
