/* s16_conv2d_avx2: 2-D convolution and dense layers with tensors of 16 bits, with AVX2: pairs of int16 (vpmaddwd).
 * Layouts and reference: qcc_avx2_wide_conv2d.h. */
#include "qcc_dot_avx2.h"

#include "qcc_avx2_wide_conv2d.h"

void qcc_s16_conv2d_avx2(const qcc_avx2_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT multiplier,
                         const int32_t *QCC_RESTRICT shift, void *output, void *workspace) {
  qcc_wide_conv2d(params, input, skip, weights, bias, skip_multiplier, multiplier, shift, output, workspace);
}
