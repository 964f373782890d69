/* tweedie: a diffusion engine behind a C ABI.
 *
 * Sampling from a model directory:
 *
 *     tw_context *ctx = NULL;
 *     tw_model *unet = NULL;
 *     tw_sampler *sampler = NULL;
 *     tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
 *     options.steps = 50;
 *     options.seed = 7;
 *     if (tw_context_create(NULL, &ctx) != TW_OK ||
 *         tw_model_load(ctx, "ddpm-cifar10-32", NULL, &unet) != TW_OK ||
 *         tw_sampler_create(unet, &options, &sampler) != TW_OK ||
 *         tw_sampler_run(sampler, 64, NULL, NULL, images) != TW_OK)
 *         fprintf(stderr, "%s\n", tw_context_error(ctx));
 *
 * Handles are opaque and made from a context (context.h says which thread may use what). Every call
 * that can fail returns a tw_status; the text is tw_context_error()'s. Structs of options start
 * with their size: initialise them with their _INIT macro, so that they can grow. */
#ifndef TWEEDIE_TWEEDIE_H
#define TWEEDIE_TWEEDIE_H

#include "context.h"
#include "dataset.h"
#include "export.h"
#include "model.h"
#include "noise.h"
#include "plan.h"
#include "sampler.h"
#include "schedule.h"
#include "status.h"
#include "tensor.h"
#include "trainer.h"

#endif
