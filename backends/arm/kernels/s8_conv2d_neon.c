/* s8_conv2d_neon: see qcc_neon_conv2d.h, over the dot products of qcc_dot_neon.h. */
#include "qcc_dot_neon.h"
#include "qcc_neon_conv2d.h"

void qcc_s8_conv2d_neon(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                      const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                      const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale, int8_t *output,
                      void *workspace) {
  qcc_conv_blocks(4, 1, qcc_conv_lines, params, input, skip, weights, bias, skip_multiplier, scale, output,
                  (int8_t *)workspace);
}
