// Convolutions between an image and very few channels: the first and the last layer of a network,
// and their gradients. Device memory should bind them, so that neither the 16 columns that a tile
// has at least (64 in exact fp32) nor elements fetched tap by tap may cost more.
//
//   call                          taken by        because
//   forward, 1 .. 4 channels in   few inputs      any stride; aligned or not
//   forward, 1 .. 4 out           few outputs     a patch's pixels are read once for all taps
//   dx of 1 .. 4 channels out     few inputs      a convolution of dy
//   dx of 1 .. 4 channels in      few outputs     the same
//   a tile or a split asked for   tiles, phases   tuning and tests get what they name
//   upsampled, dx at stride > 1   tiles, phases   several kernels in one call
//   two tensors of few channels   tiles           a pixel lies in two places
//   to few, at stride > 1         tiles           most of a pixel's contributions fall away
//   to few, channels in no whole  tiles           a pixel is read 16 bytes at a time
//     chunks, or not aligned
//   more than 64 along K from     tiles           what a pixel sees does not fit beside y's tile
//     few, 40 columns to few                      in shared memory; the product binds, not memory
#pragma once

#include "conv_gradient.cuh"
#include "conv_tiles.cuh"

namespace tw {

constexpr int few_channels = 4;
// Taps times channels in; taps are bits of a word, of which the last stands for none.
constexpr int few_inputs_k = 64, few_inputs_taps = 31;
// Taps times channels out.
constexpr int few_outputs_columns = 40;

// From few channels: with statistics, see few_inputs_bm and _bn.
constexpr int few_inputs_bm = 128, few_inputs_bn = 64;
bool takes_few_inputs(const twk_conv_args &a, const ConvInput &in);
template <typename E>
twk_status launch_few_inputs(const twk_conv_args &a, const ConvInput &in, const E &e,
                             twk_stream stream);

// To few channels: without statistics. `wide` as in Product.
bool takes_few_outputs(const twk_conv_args &a, const ConvInput &in, bool wide);
template <typename E>
twk_status launch_few_outputs(const twk_conv_args &a, const ConvInput &in, const E &e,
                              twk_stream stream);

} // namespace tw
