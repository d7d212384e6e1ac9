/* s8_conv2d_s16_avx512vnni: 2-D convolution and dense layers of int8 whose result, or residual operand, has 16 bits.
 *
 * input    int8[batch][input_height][input_width], pixels input_step elements apart, each [groups][input_channels]
 * skip     int8 or int16, as the output, or NULL
 * weights  int8[groups][blocks][kernel_height][runs][ceil(run / 4)][vectors][16][4]: blocks of `vectors` * 16 output
 *          channels (the last one has as many vectors as it needs), in the order of qcc_avx512_wide.h, zero where there is
 *          no channel. A run is what lies side by side: a whole kernel row, or one tap where dilation_width is not 1
 * bias     int32[groups][vectors of all blocks][16], in that order, with -128 * sum(w) and the zero_points of input and
 *          skip folded in, plus 2^31
 * skip_multiplier  int32[as bias], or NULL
 * multiplier, shift  int32[as bias], see qcc_requantize.h
 * output   int8 or int16 [batch][output_height][output_width], pixels output_step elements apart, each
 *          [groups][output_channels]; may be written over a skip of the same type
 * workspace  the image as the taps reach it, padded, and 4 bytes: where there is padding, more than one group, or a run
 *          that is not a multiple of 4 bytes
 *
 * Any stride, dilation and padding. The sum, with the residual operand, lies within int32, and what it requantizes to
 * below 2^29.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#define QCC_WIDE_INPUT 1
#include "qcc_avx512vnni_wide_conv.h"

void qcc_s8_conv2d_s16_avx512vnni(const qcc_avx512_wide_conv_params *params, const int8_t *QCC_RESTRICT input,
                                  const void *skip, const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                  const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                                  const int32_t *QCC_RESTRICT shift, void *output, void *workspace) {
  qcc_wide_conv(params, input, skip, weights, bias, skip_multiplier, multiplier, shift, output, workspace);
}
