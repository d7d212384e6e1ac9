/* s8_dense_dotprod: see qcc_neon_dense.h, over the dot products of qcc_dot_dotprod.h. */
#include "qcc_dot_dotprod.h"
#include "qcc_neon_dense.h"

void qcc_s8_dense_dotprod(const qcc_neon_conv2d_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                     const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                     const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale, int8_t *output) {
  qcc_dense(params, input, skip, weights, bias, skip_multiplier, scale, output);
}
