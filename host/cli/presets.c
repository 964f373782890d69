#include "cli/presets.h"

#include <stddef.h>
#include <string.h>

/* Points reach from -2 to 2, so nothing is clipped. The layers are too small to share among
 * threads. */
static const char scurve_model[] =
    "{\"_class_name\": \"TweedieMLP\", \"in_features\": 2, \"hidden\": 128, \"layers\": 3,"
    " \"act_fn\": \"silu\"}";

static const char scurve_scheduler[] =
    "{\"_class_name\": \"DDPMScheduler\", \"num_train_timesteps\": 1000,"
    " \"beta_schedule\": \"linear\", \"beta_start\": 0.0001, \"beta_end\": 0.02,"
    " \"prediction_type\": \"epsilon\", \"variance_type\": \"fixed_small\","
    " \"clip_sample\": false}";

static const cli_preset_option scurve_options[] = {
    {"data", "scurve"},        {"threads", "1"},        {"steps", "4000"},
    {"batch-size", "512"},     {"lr", "2e-3"},          {"lr-schedule", "cosine"},
    {"lr-warmup", "100"},      {"ema", "0.995"},        {"save-every", "1000"},
    {"preview-every", "1000"}, {"validate-every", "0"}, {NULL, NULL}};

/* Labels 0..9 and the empty one, 10, which takes a tenth of the samples. */
static const char mnist_model[] =
    "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 28, \"in_channels\": 1,"
    " \"out_channels\": 1, \"block_out_channels\": [32, 64, 64], \"layers_per_block\": 2,"
    " \"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"AttnDownBlock2D\"],"
    " \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"],"
    " \"attention_head_dim\": null, \"norm_num_groups\": 8, \"norm_eps\": 1e-05,"
    " \"num_class_embeds\": 11, \"flip_sin_to_cos\": true, \"freq_shift\": 0,"
    " \"act_fn\": \"silu\"}";

static const char image_scheduler[] =
    "{\"_class_name\": \"DDPMScheduler\", \"num_train_timesteps\": 1000,"
    " \"beta_schedule\": \"linear\", \"beta_start\": 0.0001, \"beta_end\": 0.02,"
    " \"prediction_type\": \"epsilon\", \"variance_type\": \"fixed_large\","
    " \"clip_sample\": true, \"clip_sample_range\": 1.0}";

static const cli_preset_option mnist_options[] = {
    {"steps", "2000"},        {"batch-size", "64"},      {"lr", "1e-3"},
    {"lr-warmup", "100"},     {"clip-norm", "1"},        {"ema", "0.999"},
    {"cond-dropout", "0.1"},  {"holdout", "0.1"},        {"save-every", "250"},
    {"preview-every", "500"}, {"validate-every", "250"}, {NULL, NULL}};

/* Six classes and the empty one. */
static const char shapes_model[] =
    "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 32, \"in_channels\": 3,"
    " \"out_channels\": 3, \"block_out_channels\": [32, 64, 64], \"layers_per_block\": 1,"
    " \"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"AttnDownBlock2D\"],"
    " \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"],"
    " \"attention_head_dim\": null, \"norm_num_groups\": 8, \"norm_eps\": 1e-05,"
    " \"num_class_embeds\": 7, \"flip_sin_to_cos\": true, \"freq_shift\": 0,"
    " \"act_fn\": \"silu\"}";

static const cli_preset_option shapes_options[] = {
    {"data", "shapes"},    {"steps", "2000"},         {"batch-size", "32"},
    {"lr", "1e-3"},        {"lr-schedule", "cosine"}, {"lr-warmup", "100"},
    {"clip-norm", "1"},    {"ema", "0.995"},          {"cond-dropout", "0.1"},
    {"save-every", "250"}, {"preview-every", "250"},  {"validate-every", "0"},
    {NULL, NULL}};

/* The classes are those of the data. */
static const char images_model[] =
    "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 32, \"in_channels\": 3,"
    " \"out_channels\": 3, \"block_out_channels\": [32, 64, 128], \"layers_per_block\": 2,"
    " \"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"AttnDownBlock2D\"],"
    " \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"],"
    " \"attention_head_dim\": null, \"norm_num_groups\": 8, \"norm_eps\": 1e-05,"
    " \"num_class_embeds\": 2, \"flip_sin_to_cos\": true, \"freq_shift\": 0,"
    " \"act_fn\": \"silu\"}";

static const cli_preset_option images_options[] = {
    {"steps", "10000"},    {"batch-size", "32"},     {"lr", "5e-4"},          {"lr-warmup", "200"},
    {"clip-norm", "1"},    {"ema", "0.999"},         {"cond-dropout", "0.1"}, {"flip", "0.5"},
    {"save-every", "250"}, {"preview-every", "250"}, {"validate-every", "0"}, {NULL, NULL}};

/* google/ddpm-cifar10-32's network and the values of Ho et al. 2020, section 4 and appendix B. */
static const char cifar10_model[] =
    "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 32, \"in_channels\": 3,"
    " \"out_channels\": 3, \"block_out_channels\": [128, 256, 256, 256],"
    " \"layers_per_block\": 2, \"down_block_types\": [\"DownBlock2D\", \"AttnDownBlock2D\","
    " \"DownBlock2D\", \"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\", \"UpBlock2D\","
    " \"AttnUpBlock2D\", \"UpBlock2D\"], \"attention_head_dim\": null,"
    " \"center_input_sample\": false, \"downsample_padding\": 0, \"flip_sin_to_cos\": false,"
    " \"freq_shift\": 1, \"mid_block_scale_factor\": 1, \"norm_eps\": 1e-06,"
    " \"norm_num_groups\": 32, \"time_embedding_type\": \"positional\", \"dropout\": 0.1,"
    " \"act_fn\": \"silu\"}";

static const cli_preset_option cifar10_options[] = {
    {"steps", "800000"},   {"batch-size", "128"},     {"lr", "2e-4"},
    {"lr-warmup", "5000"}, {"clip-norm", "1"},        {"ema", "0.9999"},
    {"ema-warmup", "off"}, {"flip", "0.5"},           {"save-every", "5000"},
    {"keep-last", "2"},    {"preview-every", "5000"}, {"validate-every", "0"},
    {NULL, NULL}};

static const cli_preset presets[] = {
    {"scurve", scurve_model, scurve_scheduler, scurve_options},
    {"shapes", shapes_model, image_scheduler, shapes_options},
    {"images", images_model, image_scheduler, images_options},
    {"cifar10", cifar10_model, image_scheduler, cifar10_options},
    {"mnist", mnist_model, image_scheduler, mnist_options},
};

const cli_preset *cli_preset_find(const char *name) {
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(presets[i].name, name) == 0) return &presets[i];
    return NULL;
}
