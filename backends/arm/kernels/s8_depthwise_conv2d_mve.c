/* s8_depthwise_conv2d_mve: 3x3 convolution of each channel with its own filter, 16 channels at a time.
 *
 * input    int8[batch][input_height][input_width][channels]
 * weights  int8[channels / 16][9][16], zero-padded
 * channels int32[channels / 16][4][4][4]: the constants of qcc_arm_mve.h for channels 0 4 8 12, then 2 6 10 14,
 *          1 5 9 13 and 3 7 11 15 of sixteen; zero_points are folded in the bias
 * output   int8[batch][output_height][output_width][channels]
 * workspace  int8[channels]: padding
 *
 *   acc = bias[c] + sum w[a][b][c] * x'[...][c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Products of two taps fit an int16 together, as no weight is -128; they are
 * widened in turns of even and odd lanes, and narrowed in the same order.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Requantize.int_ref.
 */
#include "qcc_arm_mve.h"

enum { VECTOR = 16, TAPS = 9, CONSTANTS = 16 };

#define QCC_WHOLE "vldrb.8 "
#define QCC_SOME "vpst\n\tvldrbt.8 " /* lanes that are not there become 0 */
/* The tap whose pointer is at taps + at: even products in q2, odd ones in q0. */
#define QCC_TAP(load, at)                  \
  "ldr %[x], [%[taps], #" at "]\n\t"       \
  "add %[x], %[offset]\n\t" load           \
  "q0, [%[x]]\n\t"                         \
  "vldrb.8 q1, [%[w]], #16\n\t"            \
  "vmullb.s8 q2, q0, q1\n\t"               \
  "vmullt.s8 q0, q0, q1\n\t"
/* Adds the products of another tap. */
#define QCC_SECOND(load, at)               \
  "ldr %[x], [%[taps], #" at "]\n\t"       \
  "add %[x], %[offset]\n\t" load           \
  "q1, [%[x]]\n\t"                         \
  "vldrb.8 q3, [%[w]], #16\n\t"            \
  "vmullb.s8 q1, q1, q3\n\t"               \
  "vadd.i16 q2, q2, q1\n\t" load           \
  "q1, [%[x]]\n\t"                         \
  "vmullt.s8 q1, q1, q3\n\t"               \
  "vadd.i16 q0, q0, q1\n\t"
/* Widens the products and adds them to the sums. */
#define QCC_WIDEN                          \
  "vmovlb.s16 q1, q2\n\t"                  \
  "vadd.i32 %q[a0], %q[a0], q1\n\t"        \
  "vmovlt.s16 q1, q2\n\t"                  \
  "vadd.i32 %q[a1], %q[a1], q1\n\t"        \
  "vmovlb.s16 q1, q0\n\t"                  \
  "vadd.i32 %q[a2], %q[a2], q1\n\t"        \
  "vmovlt.s16 q1, q0\n\t"                  \
  "vadd.i32 %q[a3], %q[a3], q1\n\t"
#define QCC_PAIR(load, at0, at1) QCC_TAP(load, at0) QCC_SECOND(load, at1) QCC_WIDEN
#define QCC_TAPS(load) \
  QCC_PAIR(load, "0", "4") QCC_PAIR(load, "8", "12") QCC_PAIR(load, "16", "20") QCC_PAIR(load, "24", "28") \
  QCC_TAP(load, "32") QCC_WIDEN
#define QCC_OPERANDS                                                                                            \
  : [a0] "+w"(acc0), [a1] "+w"(acc1), [a2] "+w"(acc2), [a3] "+w"(acc3), [w] "+r"(w), [x] "=&r"(x)               \
  : [taps] "r"(taps), [offset] "r"(offset), [left] "r"(left)                                                    \
  : "q0", "q1", "q2", "q3", "memory"

/* The channels of an output pixel from `offset` on: 16, or the last `left`. */
static inline __attribute__((always_inline)) void compute_channels(const int8_t *const *taps, ptrdiff_t offset,
                                                                   const int8_t *w, const int32_t *channels, int32_t left,
                                                                   int8x16_t low, int8x16_t high, int8_t *output) {
  int32x4_t acc0 = vldrwq_s32(channels), acc1 = vldrwq_s32(channels + CONSTANTS);
  int32x4_t acc2 = vldrwq_s32(channels + 2 * CONSTANTS), acc3 = vldrwq_s32(channels + 3 * CONSTANTS);
  const int8_t *x;
  if (left >= VECTOR) {
    __asm__(QCC_TAPS(QCC_WHOLE) QCC_OPERANDS);
  } else { /* compilers cannot be told of the predicate register: it is left as vctp8q(left) below sets it */
    __asm__("vctp.8 %[left]\n\t" QCC_TAPS(QCC_SOME) QCC_OPERANDS);
  }
  acc0 = qcc_mve_requantize(acc0, channels);
  acc1 = qcc_mve_requantize(acc1, channels + CONSTANTS);
  acc2 = qcc_mve_requantize(acc2, channels + 2 * CONSTANTS);
  acc3 = qcc_mve_requantize(acc3, channels + 3 * CONSTANTS);
  const int16x8_t even = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(acc0), acc0), acc1);
  const int16x8_t odd = vqmovntq_s32(vqmovnbq_s32(vreinterpretq_s16_s32(acc2), acc2), acc3);
  int8x16_t y = vqmovntq_s16(vqmovnbq_s16(vreinterpretq_s8_s16(even), even), odd);
  y = vminq_s8(vmaxq_s8(y, low), high);
  if (left >= VECTOR) {
    vstrbq_s8(output, y);
  } else {
    vstrbq_p_s8(output, y, vctp8q((uint32_t)left));
  }
}

void qcc_s8_depthwise_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  const int8x16_t low = vdupq_n_s8((int8_t)p.low), high = vdupq_n_s8((int8_t)p.high);
  int8_t *padding = (int8_t *)workspace;
  for (int32_t c = 0; c < p.input_channels; ++c) {
    padding[c] = (int8_t)p.pad_value;
  }
  for (int32_t n = 0; n < p.batch; ++n, input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ++ox, output += p.output_channels) {
        const int8_t *taps[TAPS];
        const int8_t **tap = taps;
        for (int32_t a = 0; a < 3; ++a) {
          const int32_t y = oy * p.stride_height - p.pad_top + a * p.dilation_height;
          const int32_t x = ox * p.stride_width - p.pad_left;
          const int8_t *line = input + ((ptrdiff_t)y * p.input_width + x) * p.input_channels;
          const int32_t inside = y >= 0 && y < p.input_height;
          for (int32_t b = 0, at = x; b < 3; ++b, at += p.dilation_width) {
            *tap++ = inside && at >= 0 && at < p.input_width ? line : padding;
            line += p.dilation_width * p.input_channels;
          }
        }
        const int8_t *w = weights;
        const int32_t *constants = channels;
        for (int32_t c = 0; c < p.output_channels; c += VECTOR, w += TAPS * VECTOR, constants += 4 * CONSTANTS) {
          compute_channels(taps, c, w, constants, p.output_channels - c, low, high, output + c);
        }
      }
    }
  }
}
