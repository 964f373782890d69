/* The inside of a model: its named weights in one flat vector, and how its network is put into a
 * plan. */
#ifndef TW_MODELS_MODEL_H
#define TW_MODELS_MODEL_H

#include <stdbool.h>

#include <tweedie/model.h>
#include <tweedie/plan.h>

/* How a fresh weight is drawn. UNIFORM is PyTorch's default for convolutions and linear layers:
 * U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias. */
typedef enum tw_init { TW_INIT_UNIFORM, TW_INIT_ZERO, TW_INIT_ONE, TW_INIT_NORMAL } tw_init;

typedef struct tw_weight {
    char *name;    /* as in a diffusers file */
    uint32_t hash; /* tw_name_hash(name) */
    int rank;
    int64_t shape[TW_MAX_RANK]; /* as the plan has it: convolutions O,KH,KW,I */
    int64_t count;
    int64_t offset; /* in elements, within the flat vector; a multiple of 64 but in a stack */
    int64_t saved;  /* the same within a training state's vector */
    int stack;      /* not 0: lies right behind the one before with the same number, if any */
    bool apart;     /* not so in a training state */
    int64_t fan_in;
    tw_init init;
    double gain; /* factor of TW_INIT_NORMAL */
    bool trainable;
} tw_weight;

typedef struct tw_weights {
    tw_weight *items;
    int64_t count, capacity;
    int64_t total;     /* elements of the flat vector, gaps (always zero) included */
    int64_t trainable; /* the leading elements, which training may change; the rest stays */
    int64_t saved;     /* elements of a training state's vector, whose order no device decides */
    bool complete;     /* every weight is declared and has its place */
} tw_weights;

struct tw_model {
    tw_context *ctx;
    int references;
    tw_model_info info;
    tw_schedule *schedule;
    char *config, *scheduler_config; /* JSON texts */
    const struct tw_architecture *architecture;
    void *arch_config; /* of the architecture */
    tw_weights weights;
    void *storage;                    /* device memory, float32[weights.total] */
    int64_t version;                  /* counts changes of the weights */
    struct tw_evaluation *evaluation; /* the plan of tw_model_forward's last batch size, or null */
};

/* The network of one model in one plan. */
typedef struct tw_network {
    tw_value out;
    tw_value *parameters; /* plan values by index into model->weights; owned by the caller, who
                             frees it with tw_free. TW_NONE: it is a part of the first one of
                             its stack */
} tw_network;

typedef struct tw_network_inputs {
    tw_value x;      /* [N, shape], the plan's precision */
    tw_value t;      /* [N], float32 (float64 in double) */
    tw_value labels; /* int32[N], or TW_NONE. UNet2DModel's class_embed_type "timestep" also takes
                        [N] like t, "identity" only [N,T] of the plan's
                        precision */
    tw_value rng;    /* for dropout in training; TW_NONE: no dropout */
} tw_network_inputs;

/* Adds the model's network to `plan`. Its parameters are left unbound. TW_ERROR_ARGUMENT where
 * labels are given to a network without classes or the other way round. */
tw_status tw_model_build(tw_model *model, tw_plan *plan, const tw_network_inputs *in,
                         tw_network *out);

/* Binds every parameter to its place in the flat float32 (float64 in double) vector at `base`, or,
 * where the plan has it in 16 bits, in the vector of that format at `rounded` (which may be null
 * without any); and, where `gradients` is not null, the gradients as in `base`. */
tw_status tw_model_bind(tw_model *model, tw_plan *plan, const tw_network *network, void *base,
                        void *rounded, void *gradients);

/* A model without values for its weights (all zero). Both texts are copied; `scheduler` null means
 * DDPM's defaults; the names are for messages. */
tw_status tw_model_describe(tw_context *ctx, const char *config, const char *config_name,
                            const char *scheduler, const char *scheduler_name, tw_model **out);

/* Fresh weights, see weights.h. */
tw_status tw_model_initialize(tw_model *model, uint64_t seed);

struct tw_safetensors;
/* Reads every weight from the files, which together hold exactly the model's tensors; `where` names
 * them in errors. */
tw_status tw_model_read_weights(tw_model *model, struct tw_safetensors *const *files, int count,
                                const char *where);

/* Frees the plan that tw_model_forward keeps. */
void tw_model_forget_evaluation(tw_model *model);

#endif
