/* A diffusers scheduler_config.json: the schedule that a network was trained with, what it
 * predicts, and what its authors sampled with. */
#ifndef TW_DIFFUSION_SCHEDULER_CONFIG_H
#define TW_DIFFUSION_SCHEDULER_CONFIG_H

#include <tweedie/sampler.h>

typedef struct tw_scheduler_config {
    char class_name[48];          /* "DDPMScheduler" ... */
    tw_schedule_options schedule; /* `betas` points to `betas` below */
    double *betas;                /* owned; null unless TW_BETA_CUSTOM */
    tw_prediction prediction;
    tw_variance variance;
    tw_clipping clipping; /* NONE, RANGE or DYNAMIC, never DEFAULT */
    double clip_range, dynamic_ratio, dynamic_max;
    tw_spacing spacing; /* LEADING, TRAILING or LINSPACE */
    int64_t steps_offset;
    int set_alpha_to_one;
} tw_scheduler_config;

/* The defaults of diffusers' DDPMScheduler. */
void tw_scheduler_config_init(tw_scheduler_config *config);

/* Reads the JSON `text`; null gives the defaults. Absent keys take the default of the file's class,
 * unknown ones are ignored. `where` names the file in errors. TW_ERROR_FORMAT for what is not such
 * a file, TW_ERROR_UNSUPPORTED for values that this library does not have. On failure there is
 * nothing to free. */
tw_status tw_scheduler_config_parse(tw_context *ctx, const char *text, const char *where,
                                    tw_scheduler_config *out);

/* The JSON text that diffusers reads back as the same scheduler: class DDIMScheduler if that is
 * the class's name, else DDPMScheduler. Freed with tw_free(ctx, text). */
tw_status tw_scheduler_config_write(tw_context *ctx, const tw_scheduler_config *config,
                                    char **text);

void tw_scheduler_config_free(tw_context *ctx, tw_scheduler_config *config);

#endif
