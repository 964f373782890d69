// The gradient of a convolution's input: a convolution of dy in as many classes of pixels as the
// stride makes, see conv_phases.cuh.
#include "conv_few.cuh"
#include "conv_specialised.cuh"

namespace tw {
namespace {

enum class Way { phases, few_inputs, few_outputs };

struct Choice {
    Way way;
    PhasePlan plan;
    ConvInput only; // the convolution of the only class, where few channels make it special
};

// False where the sizes do not fit.
bool plan_of(const twk_conv_args &a, PhasePlan *plan) {
    ConvSizes s;
    if (!is_format(a.format) || !sizes_fit(a, &s) || !indices_fit(a, &s)) return false;
    const int per = 16 / (int)format_bytes(a.format), up = a.upsample ? 2 : 1;
    plan->phases.y = gradient_axis((int)a.h, a.kernel_h, a.pad_top, a.stride, up);
    plan->phases.x = gradient_axis((int)a.w, a.kernel_w, a.pad_left, a.stride, up);
    plan->phases.round = per;
    // Only the columns of the tensors that are wanted.
    const int first = a.dx ? 0 : a.channels, channels = a.channels + a.channels2;
    const int64_t taps = (int64_t)a.kernel_h * a.kernel_w;
    Laying &laying = plan->laying;
    laying.from = static_cast<const unsigned char *>(a.weight) + first * format_bytes(a.format);
    laying.to = a.workspace;
    laying.columns = (a.dx2 ? channels : a.channels) - first;
    laying.channels = a.out_channels;
    laying.column_stride = 1;
    laying.channel_stride = taps * channels;
    laying.tap_stride = channels;
    ConvInput &in = plan->in;
    in = {};
    in.x = a.dy;
    in.weight = a.workspace;
    in.h = (int)s.out_h;
    in.w = (int)s.out_w;
    in.channels1 = in.channels = a.out_channels;
    in.rows = (int)a.batch;
    in.out_channels = laying.columns;
    in.stride = plan->phases.y.step;
    plan->product.wide = a.out_channels % per == 0 && aligned_16(a.dy);
    return complete(a, plan);
}

// False where the sizes do not fit.
bool choose(const twk_conv_args &a, Choice *c) {
    PhasePlan &plan = c->plan;
    c->way = Way::phases;
    if (!plan_of(a, &plan)) return false;
    if (a.stride != 1 || a.upsample) return true;
    // Rows of weights side by side: a whole number of chunks each where not few go in.
    Phases dense = plan.phases;
    dense.round = 1;
    c->only = input_of_class(plan.in, dense, 0, 0, (int)format_bytes(a.format));
    if (takes_few_inputs(a, c->only))
        c->way = Way::few_inputs;
    else if (takes_few_outputs(a, c->only, plan.product.wide))
        c->way = Way::few_outputs;
    else
        return true;
    plan.phases.round = 1;
    plan.slice_bytes = 0;
    return true;
}

ImageGradient epilogue_of(const twk_conv_args &a, const PhasePlan &plan) {
    const int per = 16 / (int)format_bytes(a.format);
    ImageGradient e;
    e.rows = (int)(a.batch * a.h * a.w);
    e.columns1 = a.dx ? a.channels : 0;
    e.columns = plan.laying.columns;
    e.scale = a.scale == 0.0f ? 1.0f : a.scale;
    e.dx = a.dx;
    e.dx2 = a.dx2;
    e.add = a.dx_add;
    e.add2 = a.dx2_add;
    e.wide = e.columns1 % per == 0 && e.columns % per == 0 && aligned_16(a.dx) &&
             aligned_16(a.dx2) && aligned_16(a.dx_add) && aligned_16(a.dx2_add);
    e.slices = slices_of(plan, a.workspace);
    return e;
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_conv_input_gradient_workspace(const twk_conv_args *args) {
    Choice c;
    if (!args || (!args->dx && !args->dx2) || !choose(*args, &c)) return 0;
    return c.plan.weight_bytes + c.plan.slice_bytes;
}

extern "C" twk_status twk_conv_input_gradient(const twk_conv_args *args, twk_stream stream) {
    TW_REQUIRE(args, "input gradient: no arguments");
    const twk_conv_args &a = *args;
    ConvSizes s;
    Choice c;
    TW_REQUIRE(is_format(a.format), "input gradient: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "input gradient: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X256_TMA, "input gradient: unknown tile");
    TW_REQUIRE(sizes_fit(a, &s), "input gradient: sizes, strides and padding leave no output");
    TW_REQUIRE(!a.silu, "input gradient: of the convolution alone, without silu");
    TW_REQUIRE(a.dy && a.weight, "input gradient: dy and weight are needed");
    TW_REQUIRE(a.dx || a.dx2, "input gradient: neither dx nor dx2 is wanted");
    TW_REQUIRE(!a.dx2 || a.channels2 > 0, "input gradient: dx2 without channels2");
    TW_REQUIRE((a.dx || !a.dx_add) && (a.dx2 || !a.dx2_add),
               "input gradient: something to add to what is not wanted");
    if (!choose(a, &c))
        return fail(TWK_UNSUPPORTED, "input gradient: more than 2^30 pixels, taps or classes");
    const PhasePlan &plan = c.plan;
    TW_REQUIRE(a.workspace && aligned_16(a.workspace) &&
                   a.workspace_bytes >= plan.weight_bytes + plan.slice_bytes,
               "input gradient: needs more workspace, at a multiple of 16 bytes");
    const ImageGradient e = epilogue_of(a, plan);
    if (c.way == Way::phases && plan.tile.tile == TWK_TILE_128X256_TMA)
        return launch_boxed_phases(a, plan, e, stream);
    if (c.way == Way::phases) return launch_phases(a, plan, e, stream);
    const twk_status laid = lay_weights(a, plan, stream);
    if (laid != TWK_OK) return laid;
    return c.way == Way::few_inputs ? launch_few_inputs(a, c.only, e, stream)
                                    : launch_few_outputs(a, c.only, e, stream);
}
