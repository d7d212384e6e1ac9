/* Functions of one float, element by element: output[i] = function(input[i]).
 *
 * input, output: float[count]; they may be the same. Accuracy: see qcc_math.h.
 * Reference: float_ref of the ops in qcc/ir/ops/activation.py.
 */
#include "qcc_float.h"
#include "qcc_math.h"

static float softplus(float x) {
  /* log(1 + e^x) without overflow for a large x */
  return (x > 0.0f ? x : 0.0f) + qcc_log1pf(qcc_expf(-qcc_fabsf(x)));
}

static float elu(float x, float alpha) {
  return x > 0.0f ? x : alpha * qcc_expm1f(x);
}

static float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + qcc_tanhf(0.797884561f * (x + 0.044715f * x * x * x)));
}

static float sign(float x) {
  return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x);
}

#define QCC_EACH(expression)                  \
  for (int32_t i = 0; i < params->count; ++i) { \
    const float x = input[i];                 \
    output[i] = (expression);                 \
  }                                           \
  break

void qcc_f32_unary_scalar(const qcc_f32_unary_params *params, const float *input, float *output) {
  const float alpha = params->alpha;
  const float beta = params->beta;
  switch ((qcc_f32_function)params->function) {
    case QCC_CLAMP:
      QCC_EACH(qcc_clamp_f32(x, alpha, beta));
    case QCC_SIGMOID:
      QCC_EACH(qcc_sigmoidf(x));
    case QCC_HARD_SIGMOID:
      QCC_EACH(qcc_clamp_f32(alpha * x + beta, 0.0f, 1.0f));
    case QCC_HARD_SWISH:
      QCC_EACH(x * qcc_clamp_f32(x / 6.0f + 0.5f, 0.0f, 1.0f));
    case QCC_SWISH:
      QCC_EACH(x * qcc_sigmoidf(alpha * x));
    case QCC_MISH:
      QCC_EACH(x * qcc_tanhf(softplus(x)));
    case QCC_SOFTPLUS:
      QCC_EACH(softplus(x));
    case QCC_SOFTSIGN:
      QCC_EACH(x / (1.0f + qcc_fabsf(x)));
    case QCC_TANH:
      QCC_EACH(qcc_tanhf(x));
    case QCC_LEAKY_RELU:
      QCC_EACH(x < 0.0f ? alpha * x : x);
    case QCC_THRESHOLDED_RELU:
      QCC_EACH(x > alpha ? x : 0.0f);
    case QCC_ELU:
      QCC_EACH(elu(x, alpha));
    case QCC_SELU:
      QCC_EACH(beta * elu(x, alpha));
    case QCC_CELU:
      QCC_EACH(x > 0.0f ? x : alpha * qcc_expm1f(x / alpha));
    case QCC_GELU:
      QCC_EACH(0.5f * x * (1.0f + qcc_erff(0.707106781f * x)));
    case QCC_GELU_TANH:
      QCC_EACH(gelu_tanh(x));
    case QCC_ERF:
      QCC_EACH(qcc_erff(x));
    case QCC_EXP:
      QCC_EACH(qcc_expf(x));
    case QCC_LOG:
      QCC_EACH(qcc_logf(x));
    case QCC_SQRT:
      QCC_EACH(qcc_sqrtf(x));
    case QCC_RECIPROCAL:
      QCC_EACH(1.0f / x);
    case QCC_NEG:
      QCC_EACH(-x);
    case QCC_ABS:
      QCC_EACH(qcc_fabsf(x));
    case QCC_SIGN:
      QCC_EACH(sign(x));
    case QCC_FLOOR:
      QCC_EACH(qcc_floorf(x));
    case QCC_CEIL:
      QCC_EACH(qcc_ceilf(x));
    case QCC_ROUND:
      QCC_EACH(qcc_rintf(x));
    case QCC_SIN:
      QCC_EACH(qcc_sinf(x));
    case QCC_COS:
      QCC_EACH(qcc_cosf(x));
    case QCC_ASIN:
      QCC_EACH(qcc_asinf(x));
    case QCC_ACOS:
      QCC_EACH(qcc_acosf(x));
    case QCC_ATAN:
      QCC_EACH(qcc_atanf(x));
    case QCC_ASINH:
      QCC_EACH(qcc_asinhf(x));
    case QCC_ATANH:
      QCC_EACH(qcc_atanhf(x));
    case QCC_SHRINK:
      QCC_EACH(x < -alpha ? x + beta : (x > alpha ? x - beta : 0.0f));
  }
}
