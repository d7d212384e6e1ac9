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

enum { VECTOR = 16, TAPS = 9, CONSTANTS = 64 };

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
  "vadd.i32 q4, q4, q1\n\t"        \
  "vmovlt.s16 q1, q2\n\t"                  \
  "vadd.i32 q5, q5, q1\n\t"        \
  "vmovlb.s16 q1, q0\n\t"                  \
  "vadd.i32 q6, q6, q1\n\t"        \
  "vmovlt.s16 q1, q0\n\t"                  \
  "vadd.i32 q7, q7, q1\n\t"
#define QCC_PAIR(load, at0, at1) QCC_TAP(load, at0) QCC_SECOND(load, at1) QCC_WIDEN
#define QCC_TAPS(load) \
  QCC_PAIR(load, "0", "4") QCC_PAIR(load, "8", "12") QCC_PAIR(load, "16", "20") QCC_PAIR(load, "24", "28") \
  QCC_TAP(load, "32") QCC_WIDEN
#define QCC_BIAS                           \
  "vldrw.32 q4, [%[channels]]\n\t"         \
  "vldrw.32 q5, [%[channels], #64]\n\t"    \
  "vldrw.32 q6, [%[channels], #128]\n\t"   \
  "vldrw.32 q7, [%[channels], #192]\n\t"
/* As in qcc_arm_mve.h. */
#define QCC_REQUANTIZE(sum, multiplier, rounding, shift) \
  "vldrw.32 q0, [%[channels], #" multiplier "]\n\t"      \
  "vmulh.s32 " sum ", " sum ", q0\n\t"                   \
  "vldrw.32 q1, [%[channels], #" rounding "]\n\t"        \
  "vadd.i32 " sum ", " sum ", q1\n\t"                    \
  "vldrw.32 q2, [%[channels], #" shift "]\n\t"           \
  "vshl.s32 " sum ", " sum ", q2\n\t"
/* The sums as 16 saturated bytes in q4, within [low, high]. */
#define QCC_BYTES                                                                               \
  QCC_REQUANTIZE("q4", "16", "32", "48") QCC_REQUANTIZE("q5", "80", "96", "112")                \
  QCC_REQUANTIZE("q6", "144", "160", "176") QCC_REQUANTIZE("q7", "208", "224", "240")           \
  "vqmovnb.s32 q4, q4\n\t"                                                                      \
  "vqmovnt.s32 q4, q5\n\t"                                                                      \
  "vqmovnb.s32 q6, q6\n\t"                                                                      \
  "vqmovnt.s32 q6, q7\n\t"                                                                      \
  "vqmovnb.s16 q4, q4\n\t"                                                                      \
  "vqmovnt.s16 q4, q6\n\t"                                                                      \
  "vdup.8 q0, %[low]\n\t"                                                                       \
  "vdup.8 q1, %[high]\n\t"                                                                      \
  "vmax.s8 q4, q4, q0\n\t"                                                                      \
  "vmin.s8 q4, q4, q1\n\t"
#define QCC_OPERANDS                                                                            \
  : [w] "+r"(w), [x] "=&r"(x)                                                                   \
  : [taps] "r"(taps), [offset] "r"(offset), [left] "r"(left), [channels] "r"(channels), [y] "r"(y), \
    [low] "r"(p->low), [high] "r"(p->high)                                                      \
  : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "memory"

/* All channels of an output pixel, 16 at a time. Only here are there predicates, of which compilers are not told. */
static void compute_pixel(const qcc_dsp_conv2d_params *p, const int8_t *const *taps, const int8_t *w,
                          const int32_t *channels, int8_t *y) {
  int32_t offset = 0, left = p->output_channels;
  const int8_t *x;
  for (; left >= VECTOR; left -= VECTOR, offset += VECTOR, channels += CONSTANTS, y += VECTOR) {
    __asm__ volatile(QCC_BIAS QCC_TAPS(QCC_WHOLE) QCC_BYTES "vstrb.8 q4, [%[y]]\n\t" QCC_OPERANDS);
  }
  if (left > 0) {
    __asm__ volatile(QCC_BIAS "vctp.8 %[left]\n\t" QCC_TAPS(QCC_SOME) QCC_BYTES "vpst\n\tvstrbt.8 q4, [%[y]]\n\t" QCC_OPERANDS);
  }
}

void qcc_s8_depthwise_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *QCC_RESTRICT input,
                                 const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                                 int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  const ptrdiff_t right = (ptrdiff_t)p.dilation_width * p.input_channels; /* from a tap to the next one */
  const ptrdiff_t down = (ptrdiff_t)p.dilation_height * p.input_width * p.input_channels;
  int8_t *padding = (int8_t *)workspace;
  for (int32_t c = 0; c < p.input_channels; ++c) {
    padding[c] = (int8_t)p.pad_value;
  }
  for (int32_t n = 0; n < p.batch; ++n, input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      const int32_t y = oy * p.stride_height - p.pad_top;
      const int32_t rows_inside = y >= 0 && y + 2 * p.dilation_height < p.input_height;
      int32_t x = -p.pad_left;
      for (int32_t ox = 0; ox < p.output_width; ++ox, output += p.output_channels, x += p.stride_width) {
        const int8_t *line = input + ((ptrdiff_t)y * p.input_width + x) * p.input_channels;
        const int8_t *taps[TAPS];
        if (rows_inside && x >= 0 && x + 2 * p.dilation_width < p.input_width) {
          for (int32_t a = 0; a < TAPS; a += 3, line += down) {
            taps[a] = line;
            taps[a + 1] = line + right;
            taps[a + 2] = line + 2 * right;
          }
        } else {
          for (int32_t a = 0; a < 3; ++a, line += down) {
            const int32_t at_y = y + a * p.dilation_height, inside = at_y >= 0 && at_y < p.input_height;
            for (int32_t b = 0; b < 3; ++b) {
              const int32_t at = x + b * p.dilation_width;
              taps[3 * a + b] = inside && at >= 0 && at < p.input_width ? line + b * right : padding;
            }
          }
        }
        compute_pixel(&p, taps, weights, channels, output);
      }
    }
  }
}
