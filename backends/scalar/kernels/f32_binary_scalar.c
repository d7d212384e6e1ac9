/* Operations of two floats with numpy broadcasting, clamped to [low, high].
 *
 *   output[i0, ..., i5] = clamp(a[sum ik * a_strides[k]] op b[sum ik * b_strides[k]])
 *
 * a, b: the one that is NULL stands for constant. output: shape, densely packed; it may be written over an operand
 * whose strides are those of the output.
 * Reference: float_ref of the ops in qcc/ir/ops/elementwise.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

/* numpy's minimum and maximum: NaN wins. */
static float minimum(float x, float y) {
  return x < y || qcc_is_nan(x) ? x : y;
}

static float maximum(float x, float y) {
  return x > y || qcc_is_nan(x) ? x : y;
}

#define QCC_LARGEST 3.40282347e+38f /* as a bound: none, an infinity stays */

#define QCC_EACH(expression)                    \
  for (int32_t i = 0; i < count; ++i) {         \
    const float x = *a;                         \
    const float y = *b;                         \
    output[i] = qcc_clamp_f32(expression, low, high); \
    a += a_stride;                              \
    b += b_stride;                              \
  }                                             \
  break

static void run_row(const qcc_f32_binary_params *params, const float *a, const float *b, float *output) {
  const int32_t count = params->shape[5];
  const ptrdiff_t a_stride = params->a_strides[5];
  const ptrdiff_t b_stride = params->b_strides[5];
  const float low = params->low <= -QCC_LARGEST ? -qcc_infinity() : params->low;
  const float high = params->high >= QCC_LARGEST ? qcc_infinity() : params->high;
  switch ((qcc_f32_operation)params->operation) {
    case QCC_ADD:
      QCC_EACH(x + y);
    case QCC_SUB:
      QCC_EACH(x - y);
    case QCC_MUL:
      QCC_EACH(x * y);
    case QCC_DIV:
      QCC_EACH(x / y);
    case QCC_MIN:
      QCC_EACH(minimum(x, y));
    case QCC_MAX:
      QCC_EACH(maximum(x, y));
    case QCC_POW:
      QCC_EACH(qcc_powf(x, y));
    case QCC_PRELU:
      QCC_EACH(x < 0.0f ? y * x : x);
    case QCC_LESS:
      QCC_EACH(x < y ? 1.0f : 0.0f);
    case QCC_LESS_OR_EQUAL:
      QCC_EACH(x <= y ? 1.0f : 0.0f);
    case QCC_EQUAL:
      QCC_EACH(x == y ? 1.0f : 0.0f);
    case QCC_KEEP:
      QCC_EACH(y != 0.0f ? x : 0.0f);
  }
}

void qcc_f32_binary_scalar(const qcc_f32_binary_params *params, const float *a, const float *b,
                           const float *QCC_RESTRICT constant, float *output) {
  int32_t at[5] = {0, 0, 0, 0, 0};
  a = a != NULL ? a : constant;
  b = b != NULL ? b : constant;
  for (;;) {
    int axis = 4;
    run_row(params, a, b, output);
    output += params->shape[5];
    for (; axis >= 0; --axis) {
      const int32_t last = params->shape[axis] - 1;
      if (at[axis] < last) {
        ++at[axis];
        a += params->a_strides[axis];
        b += params->b_strides[axis];
        break;
      }
      at[axis] = 0;
      a -= (ptrdiff_t)last * params->a_strides[axis];
      b -= (ptrdiff_t)last * params->b_strides[axis];
    }
    if (axis < 0) {
      return;
    }
  }
}
