/* Numbers that change with the step or the time step. */
#include <math.h>

#include "train/internal.h"

double tw_learning_rate(const tw_trainer_options *o, int64_t step) {
    if (step < o->lr_warmup) return o->lr * (double)(step + 1) / (double)o->lr_warmup;
    int64_t length = o->steps - o->lr_warmup;
    double part = length > 0 ? (double)(step - o->lr_warmup) / (double)length : 1.0;
    if (part > 1.0) part = 1.0;
    switch (o->lr_schedule) {
    case TW_LR_COSINE:
        return o->lr * 0.5 * (1.0 + cos(3.14159265358979323846 * part));
    case TW_LR_LINEAR:
        return o->lr * (1.0 - part);
    case TW_LR_CONSTANT:
        break;
    }
    return o->lr;
}

double tw_loss_weight_at(const tw_trainer_options *o, tw_prediction prediction, double a) {
    if (o->weight == TW_WEIGHT_SIMPLE) return 1.0;
    double snr = a / (1.0 - a), clipped = fmin(snr, o->snr_gamma);
    switch (prediction) {
    case TW_PREDICT_EPSILON:
        return snr > 0 ? clipped / snr : 1.0;
    case TW_PREDICT_V:
        return clipped / (snr + 1.0);
    case TW_PREDICT_SAMPLE:
        break;
    }
    return clipped;
}
