/* s8_conv2d_avx512vnni: 2-D convolution and dense layers, with requantization and a residual operand.
 *
 * input    int8[batch][input_height][input_width], pixels input_step bytes apart, each [groups][input_channels]
 * skip     int8, as the output, or NULL
 * weights  int8[groups][blocks][kernel_height][runs][ceil(run / 4)][vectors][16][4]: blocks of `vectors` * 16 output
 *          channels (the last one has as many vectors as it needs), in the order of qcc_avx512vnni_conv.h, zero where there
 *          is no channel. A run is what lies side by side: a whole kernel row, or one tap where dilation_width is not 1
 * bias     int32[groups][vectors of all blocks][16], in that order, with -128 * sum(w), the zero_point of the input, and
 *          -(128 + zero_point) * multiplier of the skip operand folded in
 * skip_multiplier  int16[as bias][2], the sum of both; or NULL
 * scale    float[as bias]: see single_rounding in vnni.py
 * output   int8[batch][output_height][output_width], pixels output_step bytes apart, each [groups][output_channels]; may be
 *          written over skip
 * workspace  the image as the taps reach it, padded, and 4 bytes: where there is padding, more than one group, or a run
 *          that is not a multiple of 4 bytes
 *
 * Any stride, dilation and padding.
 * Reference: Conv2d.int_ref, Dense.int_ref, Add.int_ref, Requantize.int_ref.
 */
#define QCC_CONV_EXACT 0
#include "qcc_avx512vnni_conv.h"

void qcc_s8_conv2d_avx512vnni(const qcc_avx512_conv_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                              const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                              const int16_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale,
                              int8_t *output, void *workspace) {
  const qcc_conv_block constants = {weights, bias, skip_multiplier, scale, NULL, NULL, 0};
  qcc_conv(params, input, skip, constants, output, workspace);
}
