/* s8_elementwise_neon: sums and products with broadcasting, requantized; 16 elements of the last axis at a time.
 *
 * a, b     int8 activations, broadcast as a_stride and b_stride say; along the last axis these are 0 or 1
 * or b     int32 (sum) or int16 (product), a constant, broadcast as b_stride says
 * a_multiplier, b_multiplier  int32[count[3]] when per_channel is 1, else int32[1]
 * scale    int32[2][the same], m and k of qcc_neon.h
 * output   int8[count[0]][count[1]][count[2]][count[3]]; may be written over an operand of the same size
 *
 *   sum      acc = (a - a_zero_point) * a_multiplier[c] + (b - b_zero_point) * b_multiplier[c]    (constant: + b)
 *   product  acc = (a - a_zero_point) * (b - b_zero_point)                                        (constant: * b)
 *   output = requantize(acc), saturated to [low, high]
 *
 * Accumulator: int32; both terms and their sum fit, as proved by the compiler.
 * Reference: Add.int_ref, Sub.int_ref, Mul.int_ref, Requantize.int_ref.
 */
#include "qcc_neon.h"
#include "qcc_requantize.h"

enum { SUM, SUM_CONSTANT, PRODUCT, PRODUCT_CONSTANT };

typedef struct {
  const void *b;
  const int32_t *a_multiplier, *b_multiplier, *m, *k;
} operands;

/* 16 elements. */
typedef struct {
  int16x8_t low, high;
} halves;

/* Of 16 activations, or of one that stands for all. */
QCC_INLINE halves load_s8(const int8_t *x, ptrdiff_t stride, int8x8_t zero_point) {
  const int8x16_t bytes = stride ? vld1q_s8(x) : vdupq_n_s8(*x);
  const halves y = {vsubl_s8(vget_low_s8(bytes), zero_point), vsubl_s8(vget_high_s8(bytes), zero_point)};
  return y;
}

QCC_INLINE halves load_s16(const int16_t *x, ptrdiff_t stride) {
  const halves y = {stride ? vld1q_s16(x) : vdupq_n_s16(*x), stride ? vld1q_s16(x + 8) : vdupq_n_s16(*x)};
  return y;
}

/* Elements 4 * v to 4 * v + 3. */
QCC_INLINE int16x4_t quarter(halves x, const int v) {
  const int16x8_t half = v < 2 ? x.low : x.high;
  return v % 2 ? vget_high_s16(half) : vget_low_s16(half);
}

QCC_INLINE int32x4_t load_s32(const int32_t *x, ptrdiff_t stride, const int v) {
  return stride ? vld1q_s32(x + 4 * v) : vdupq_n_s32(*x);
}

/* One element. The compiler proved that no product and no sum leaves 32 bits. */
QCC_INLINE int8_t one(const int kind, const qcc_binary_params *p, const int8_t *a, const operands *in, ptrdiff_t b,
                      ptrdiff_t channel) {
  int32_t acc = *a - p->a_zero_point;
  if (kind == SUM) {
    acc = acc * in->a_multiplier[channel] + (((const int8_t *)in->b)[b] - p->b_zero_point) * in->b_multiplier[channel];
  } else if (kind == SUM_CONSTANT) {
    acc = acc * in->a_multiplier[channel] + ((const int32_t *)in->b)[b];
  } else if (kind == PRODUCT) {
    acc *= ((const int8_t *)in->b)[b] - p->b_zero_point;
  } else {
    acc *= ((const int16_t *)in->b)[b];
  }
  return qcc_requantize_s8(acc, in->m[channel], 47 - in->k[channel], p->output_zero_point, p->low, p->high);
}

/* A row along the last axis: strides of the operands, and of what has a value for each channel. */
QCC_INLINE void row_of(const int kind, const qcc_binary_params *p, const int8_t *x, const operands *in, ptrdiff_t b,
                       int8_t *output, const ptrdiff_t a_step, const ptrdiff_t b_step, const ptrdiff_t step) {
  const qcc_neon_output o = qcc_saturation(p->output_zero_point, p->low, p->high);
  const int8x8_t a_zero_point = vdup_n_s8((int8_t)p->a_zero_point), b_zero_point = vdup_n_s8((int8_t)p->b_zero_point);
  const int32_t width = p->count[3];
  int32_t i = 0;
  for (; i + 16 <= width; i += 16, x += 16 * a_step, b += 16 * b_step) {
    const halves left = load_s8(x, a_step, a_zero_point);
    halves right = left;
    if (kind == SUM || kind == PRODUCT) {
      right = load_s8((const int8_t *)in->b + b, b_step, b_zero_point);
    } else if (kind == PRODUCT_CONSTANT) {
      right = load_s16((const int16_t *)in->b + b, b_step);
    }
    int32x4_t acc[4];
    QCC_UNROLL
    for (int v = 0; v < 4; ++v) {
      if (kind == SUM || kind == SUM_CONSTANT) {
        const int32x4_t multiplier = load_s32(in->a_multiplier + i * step, step, v);
        acc[v] = vmulq_s32(vmovl_s16(quarter(left, v)), multiplier);
      } else {
        acc[v] = vmull_s16(quarter(left, v), quarter(right, v));
      }
      if (kind == SUM) {
        const int32x4_t multiplier = load_s32(in->b_multiplier + i * step, step, v);
        acc[v] = vmlaq_s32(acc[v], vmovl_s16(quarter(right, v)), multiplier);
      } else if (kind == SUM_CONSTANT) {
        acc[v] = vaddq_s32(acc[v], load_s32((const int32_t *)in->b + b, b_step, v));
      }
      acc[v] = qcc_scaled(acc[v], load_s32(in->m + i * step, step, v), load_s32(in->k + i * step, step, v));
    }
    vst1q_s8(output + i, qcc_narrowed(acc[0], acc[1], acc[2], acc[3], 1, o));
  }
  for (; i < width; ++i, x += a_step, b += b_step) {
    output[i] = one(kind, p, x, in, b, i * step);
  }
}

QCC_INLINE void rows(const int kind, const qcc_binary_params *params, const int8_t *a, const operands *operands_,
                     int8_t *output) {
  const qcc_binary_params p = *params; /* in registers: stores of bytes might change what is in memory */
  const operands in = *operands_;
  const int equal = p.a_stride[3] == 1 && p.b_stride[3] == 1, scalar = p.a_stride[3] == 1 && p.b_stride[3] == 0;
  for (int32_t i0 = 0; i0 < p.count[0]; ++i0) {
    for (int32_t i1 = 0; i1 < p.count[1]; ++i1) {
      for (int32_t i2 = 0; i2 < p.count[2]; ++i2, output += p.count[3]) {
        const int8_t *x = a + i0 * p.a_stride[0] + i1 * p.a_stride[1] + i2 * p.a_stride[2];
        const ptrdiff_t b = i0 * p.b_stride[0] + i1 * p.b_stride[1] + i2 * p.b_stride[2];
        if (equal && !p.per_channel) {
          row_of(kind, &p, x, &in, b, output, 1, 1, 0);
        } else if (scalar && !p.per_channel) {
          row_of(kind, &p, x, &in, b, output, 1, 0, 0);
        } else {
          row_of(kind, &p, x, &in, b, output, p.a_stride[3], p.b_stride[3], p.per_channel);
        }
      }
    }
  }
}

/* m, then k, of all channels or of all elements. */
QCC_INLINE operands with(const qcc_binary_params *p, const void *b, const int32_t *a_multiplier, const int32_t *b_multiplier,
                         const int32_t *scale) {
  const operands in = {b, a_multiplier, b_multiplier, scale, scale + (p->per_channel ? p->count[3] : 1)};
  return in;
}

void qcc_s8_add_neon(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT b_multiplier,
                     const int32_t *QCC_RESTRICT scale, int8_t *output) {
  const operands in = with(params, b, a_multiplier, b_multiplier, scale);
  rows(SUM, params, a, &in, output);
}

void qcc_s8_add_constant_neon(const qcc_binary_params *params, const int8_t *a, const int32_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT a_multiplier, const int32_t *QCC_RESTRICT scale,
                              int8_t *output) {
  const operands in = with(params, b, a_multiplier, NULL, scale);
  rows(SUM_CONSTANT, params, a, &in, output);
}

void qcc_s8_mul_neon(const qcc_binary_params *params, const int8_t *a, const int8_t *b,
                     const int32_t *QCC_RESTRICT scale, int8_t *output) {
  const operands in = with(params, b, NULL, NULL, scale);
  rows(PRODUCT, params, a, &in, output);
}

void qcc_s8_mul_constant_neon(const qcc_binary_params *params, const int8_t *a, const int16_t *QCC_RESTRICT b,
                              const int32_t *QCC_RESTRICT scale, int8_t *output) {
  const operands in = with(params, b, NULL, NULL, scale);
  rows(PRODUCT_CONSTANT, params, a, &in, output);
}
