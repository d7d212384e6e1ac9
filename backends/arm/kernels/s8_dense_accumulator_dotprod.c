/* s8_dense_accumulator_dotprod: the sums of a dense layer; see qcc_neon_dense.h, over the dot products of qcc_dot_dotprod.h. */
#include "qcc_dot_dotprod.h"
#include "qcc_neon_dense.h"

void qcc_s8_dense_accumulator_dotprod(const qcc_dense_accumulator_params *params, const int8_t *QCC_RESTRICT input,
                                  const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                  int32_t *QCC_RESTRICT output) {
  qcc_dense_accumulators(params, input, weights, bias, output);
}
