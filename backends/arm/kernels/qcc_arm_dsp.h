/* What the kernels for the DSP extension of Armv7E-M (Cortex-M4, M7, M33) share.
 *
 * The instructions multiply pairs of int16 and add both products to an int32 (smlad). Four int8 that lie side by side,
 * k0 k1 k2 k3, become the pairs (k0, k2) and (k1, k3) with one instruction each (sxtb16); weights and activations are
 * widened the same way, so that nothing has to be put in order.
 *
 * Requantization: multiplier in [2^30, 2^31), shift in [33, 55], which the compiler checks. The rounding constant then lies
 * in the upper half of the product, and the zero_point can be added to it:
 *   ((acc * multiplier + 2^(shift - 1)) >> shift) + zero_point
 *     = (high32(acc * multiplier) + (2 * zero_point + 1) * 2^(s - 1)) >> s, s = shift - 32
 * |high32| <= 2^30 and the other term is less than 2^30 in magnitude: no overflow. Where a shift is below 33, the kernel with
 * `up` in its name first moves the accumulator up, which the compiler proves to stay within 32 bits:
 *   (acc * multiplier + 2^(shift - 1)) >> shift = ((acc << up) * multiplier + 2^(shift + up - 1)) >> (shift + up)
 */
#ifndef QCC_ARM_DSP_H
#define QCC_ARM_DSP_H

#include "qcc_kernels.h"

#if !defined(__ARM_FEATURE_DSP)
#error "this library needs a processor with the DSP extension (Cortex-M4, M7, M33), and a compiler told so: -mcpu=cortex-m4"
#endif

/* The inner loops need every register; without optimization gcc would keep one for itself. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__OPTIMIZE__)
#pragma GCC optimize("O1")
#endif

/* 1 in the kernels that move accumulators up. */
#ifndef QCC_UP
#define QCC_UP 0
#endif

/* Of each channel, the kernels read bias, multiplier, shift + up - 32 and, where QCC_UP is 1, up. */
#if QCC_UP
enum { QCC_DSP_CHANNEL = 4 };
#else
enum { QCC_DSP_CHANNEL = 3 };
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* As qcc_conv2d_params. */
typedef struct {
  int32_t batch;
  int32_t input_height, input_width, input_channels;
  int32_t output_height, output_width, output_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t dilation_height, dilation_width;
  int32_t pad_top, pad_left; /* bottom and right follow from the output size */
  int32_t pad_value;         /* what lies around the input */
  int32_t band;              /* depthwise: rows of output computed from one copy of the input */
  int32_t output_zero_point;
  int32_t low, high; /* the output is saturated to [low, high] */
} qcc_dsp_conv2d_params;

void qcc_s8_conv2d_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace);

void qcc_s8_conv2d_up_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                          const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                          const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace);

void qcc_s8_conv2d_short_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                             const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                             const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_conv2d_short_up_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                                const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_depthwise_conv2d_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace);

void qcc_s8_depthwise_conv2d_up_dsp(const qcc_dsp_conv2d_params *params, const int8_t *input,
                                    const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                    int8_t *output, void *workspace);

typedef struct {
  int32_t input_channels, output_channels;
  int32_t output_zero_point;
  int32_t low, high;
} qcc_dsp_dense_params;

void qcc_s8_dense_dsp(const qcc_dsp_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                      const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                      const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

void qcc_s8_dense_up_dsp(const qcc_dsp_dense_params *params, const int8_t *QCC_RESTRICT input, const int8_t *skip,
                         const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                         const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output);

/* Four bytes at any address. */
static inline uint32_t qcc_load4(const int8_t *from) {
  uint32_t word;
  __builtin_memcpy(&word, from, 4);
  return word;
}

/* Bytes 0 and 2 of a word as a pair of int16. */
static inline uint32_t qcc_even_bytes(uint32_t word) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
  return pair;
}

/* Bytes 1 and 3. */
static inline uint32_t qcc_odd_bytes(uint32_t word) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
  return pair;
}

/* The lower halves of a and b. */
static inline uint32_t qcc_lower_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}

/* The upper halves of a and b. */
static inline uint32_t qcc_upper_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair) : "r"(b), "r"(a));
  return pair;
}

/* Four weights at *w times those of the columns at *x, for four pixels; both pointers move on. */
#define QCC_QUAD                                   \
  "ldr %[even], [%[w]], #4\n\t"                    \
  "ldmia %[x]!, {r2, r3, r4, r5}\n\t"              \
  "sxtb16 %[odd], %[even], ror #8\n\t"             \
  "sxtb16 %[even], %[even]\n\t"                    \
  "smlad %[s0], %[even], r2, %[s0]\n\t"            \
  "smlad %[s1], %[even], r3, %[s1]\n\t"            \
  "smlad %[s2], %[even], r4, %[s2]\n\t"            \
  "smlad %[s3], %[even], r5, %[s3]\n\t"            \
  "ldmia %[x]!, {r2, r3, r4, r5}\n\t"              \
  "smlad %[s0], %[odd], r2, %[s0]\n\t"             \
  "smlad %[s1], %[odd], r3, %[s1]\n\t"             \
  "smlad %[s2], %[odd], r4, %[s2]\n\t"             \
  "smlad %[s3], %[odd], r5, %[s3]\n\t"

enum { QCC_DSP_PIXELS = 4 };

/* Adds the products of 4 * quads weights and the columns of four pixels, int16[quads][2][4 pixels][2], to the sums of the
 * pixels, which wrap around. Returns where the weights go on. */
static inline __attribute__((always_inline)) const int8_t *qcc_dsp_products(const int8_t *w, const uint32_t *x,
                                                                            int32_t quads, int32_t *s0, int32_t *s1,
                                                                            int32_t *s2, int32_t *s3) {
  uint32_t even, odd;
  __asm__(
      "subs %[n], #4\n\t"
      "blt 2f\n"
      "1:\n\t" QCC_QUAD QCC_QUAD QCC_QUAD QCC_QUAD
      "subs %[n], #4\n\t"
      "bge 1b\n"
      "2:\n\t"
      "lsls %[n], %[n], #31\n\t" /* carry: bit 1 of the rest, sign: bit 0 */
      "bcc 3f\n\t" QCC_QUAD QCC_QUAD
      "3:\n\t"
      "bpl 4f\n\t" QCC_QUAD
      "4:\n\t"
      : [s0] "+r"(*s0), [s1] "+r"(*s1), [s2] "+r"(*s2), [s3] "+r"(*s3), [w] "+r"(w), [x] "+r"(x), [n] "+r"(quads),
        [even] "=&r"(even), [odd] "=&r"(odd)
      :
      : "r2", "r3", "r4", "r5", "cc", "memory");
  return w;
}

/* What is the same for all outputs of a channel. */
typedef struct {
  int32_t bias, multiplier, shift, rounding;
#if QCC_UP
  int32_t up;
#endif
} qcc_dsp_channel;

static inline qcc_dsp_channel qcc_dsp_channel_at(const int32_t *channel, int32_t zero_point) {
  qcc_dsp_channel c;
  c.bias = channel[0];
  c.multiplier = channel[1];
  c.shift = channel[2];
#if QCC_UP
  c.up = channel[3];
#endif
  c.rounding = (int32_t)((uint32_t)(2 * zero_point + 1) << (c.shift - 1));
  return c;
}

static inline int32_t qcc_dsp_requantize(int32_t acc, qcc_dsp_channel c) {
  int32_t value;
#if QCC_UP
  acc = (int32_t)((uint32_t)acc << c.up);
#endif
  __asm__("smmla %0, %1, %2, %3" : "=r"(value) : "r"(acc), "r"(c.multiplier), "r"(c.rounding));
  value >>= c.shift;
  __asm__("ssat %0, #8, %1" : "=r"(value) : "r"(value));
  return value;
}

/* What remains to do where [low, high] is not all of int8. */
static inline int32_t qcc_dsp_clamp(int32_t value, int32_t low, int32_t high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

#ifdef __cplusplus
}
#endif

#endif
