/* s8_dense_avxvnni: a dense layer on one row with AVX-VNNI: four bytes at a time (vpdpbusd). Layouts and reference: qcc_avx2_dense.h. */
#include "qcc_dot_avxvnni.h"

#include "qcc_avx2_dense.h"

void qcc_s8_dense_avxvnni(const qcc_avx2_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                       const int32_t *QCC_RESTRICT skip_multiplier, const float *QCC_RESTRICT scale, int8_t *output,
                       void *workspace) {
  qcc_dense(params, input, skip, weights, bias, skip_multiplier, scale, output, (int8_t *)workspace);
}
