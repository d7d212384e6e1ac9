/* Float sum, mean, product, maximum or minimum over any axes.
 *
 *   output[k0][k1][k2] = factor * reduction over r0, r1, r2 of input[sum ki * kept_strides[i] + sum ri * reduced_strides[i]]
 *
 * input: float; output: float[kept[0]][kept[1]][kept[2]]; they do not overlap. NaN wins.
 * Sums and products run in the order r0, r1, r2.
 * Reference: float_ref of the ops in qcc/ir/ops/reduce.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

/* Outputs side by side: neighbours share cache lines whichever axes are reduced. */
#define BLOCK 16

static void reduce_row(float *totals, const float *x, ptrdiff_t stride, int32_t width, int32_t reduction) {
  for (int32_t i = 0; i < width; ++i) {
    const float value = x[i * stride];
    if (reduction == QCC_REDUCE_SUM) {
      totals[i] += value;
    } else if (reduction == QCC_REDUCE_PROD) {
      totals[i] *= value;
    } else if (qcc_is_nan(value) || (reduction == QCC_REDUCE_MAX ? value > totals[i] : value < totals[i])) {
      totals[i] = value;
    }
  }
}

void qcc_f32_reduce_scalar(const qcc_f32_reduce_params *params, const float *QCC_RESTRICT input,
                           float *QCC_RESTRICT output) {
  const int32_t *kept = params->kept;
  const int32_t *ks = params->kept_strides;
  const int32_t *reduced = params->reduced;
  const int32_t *rs = params->reduced_strides;
  float totals[BLOCK];
  float start = 0.0f;
  if (params->reduction == QCC_REDUCE_PROD) {
    start = 1.0f;
  } else if (params->reduction != QCC_REDUCE_SUM) {
    start = params->reduction == QCC_REDUCE_MAX ? -qcc_infinity() : qcc_infinity();
  }
  for (int32_t k0 = 0; k0 < kept[0]; ++k0) {
    for (int32_t k1 = 0; k1 < kept[1]; ++k1) {
      for (int32_t k2 = 0; k2 < kept[2]; k2 += BLOCK) {
        const int32_t width = kept[2] - k2 < BLOCK ? kept[2] - k2 : BLOCK;
        const float *x = input + ((ptrdiff_t)k0 * ks[0] + (ptrdiff_t)k1 * ks[1] + (ptrdiff_t)k2 * ks[2]);
        for (int32_t i = 0; i < width; ++i) {
          totals[i] = start;
        }
        for (int32_t r0 = 0; r0 < reduced[0]; ++r0) {
          for (int32_t r1 = 0; r1 < reduced[1]; ++r1) {
            for (int32_t r2 = 0; r2 < reduced[2]; ++r2) {
              reduce_row(totals, x + ((ptrdiff_t)r0 * rs[0] + (ptrdiff_t)r1 * rs[1] + (ptrdiff_t)r2 * rs[2]), ks[2],
                         width, params->reduction);
            }
          }
        }
        for (int32_t i = 0; i < width; ++i) {
          *output++ = totals[i] * params->factor;
        }
      }
    }
  }
}
