/* s8_dense_dsp: see qcc_dsp_dense.h. */
#include "qcc_dsp_dense.h"

void qcc_s8_dense_dsp(const qcc_dsp_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                      const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                      const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output) {
  multiply_row(params, input, skip, weights, channels, skip_multiplier, output);
}
