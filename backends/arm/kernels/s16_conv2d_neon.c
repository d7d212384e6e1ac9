/* s16_conv2d_neon: see qcc_neon_wide_conv2d.h, over the products of qcc_dot_neon.h. */
#include "qcc_dot_neon.h"
#include "qcc_neon_wide_conv2d.h"

void qcc_s16_conv2d_neon(const qcc_neon_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                         const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale, void *output,
                         void *workspace) {
  qcc_neon_wide_conv2d(params, input, skip, weights, bias, skip_multiplier, scale, output, workspace);
}
