/* 3x3 convolution of each channel with its own filter, by dot products of one channel's taps.
 *
 * input    int8[batch][input_height][input_width][channels]
 * weights  int8[channels][3 columns][4 rows], of which the fourth row is 0, and 4 bytes more
 * channels int32[channels][QCC_MVE_CHANNEL], see qcc_arm_mve.h; all zero_points are folded in the bias
 * output   int8[batch][output_height][output_width][channels]; may be written over the input where they have one size and
 *          `band` is the whole height
 * workspace, of 4-byte elements:
 *          int8[band][columns][16 channels][4 rows]: a word has what four rows of the input have in one column of a channel
 *          uint32[pixels][4]: for each output pixel of a band, where the three columns of its window are, and 0
 *          uint32[pixels][rows]: where it is in the output; pixels = band * output_width rounded up to 4
 *
 *   acc = bias[c] + sum w[a][b][c] * x'[...][c]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. Where neither stride nor dilation moves the rows apart, four rows of input hold
 * the windows of two rows of output (`rows`): one gathered vector gives both, the second with the weights a byte, so a row,
 * further. `band` counts such groups of rows. Of an odd height the last group starts one row early.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Requantize.int_ref.
 */
#ifndef QCC_MVE_DEPTHWISE_H
#define QCC_MVE_DEPTHWISE_H

#include "qcc_arm_mve.h"

enum { BLOCK = 16, ROWS = 4, WORDS = BLOCK * ROWS, FOUR = 4 };

#define QCC_WHOLE "vldrb.8 "
#define QCC_SOME "vpst\n\tvldrbt.8 " /* lanes that are not there become 0 */
#define QCC_ROW(load, q, i) load q ", [%[x" i "]]\n\tadd %[x" i "], %[step" i "]\n\t"
/* As often as lr says: 16 bytes of each of four rows, interleaved. */
#define QCC_INTERLEAVE(load)                                                                               \
  "ldr lr, %[count]\n\t"                                                                                   \
  "wls lr, lr, 2f\n"                                                                                       \
  "1:\n\t" QCC_ROW(load, "q0", "0") QCC_ROW(load, "q1", "1") QCC_ROW(load, "q2", "2") QCC_ROW(load, "q3", "3") \
  "vst40.8 {q0, q1, q2, q3}, [%[to]]\n\t"                                                                  \
  "vst41.8 {q0, q1, q2, q3}, [%[to]]\n\t"                                                                  \
  "vst42.8 {q0, q1, q2, q3}, [%[to]]\n\t"                                                                  \
  "vst43.8 {q0, q1, q2, q3}, [%[to]]!\n\t"                                                                 \
  "le lr, 1b\n"                                                                                            \
  "2:\n\t"

/* Windows of some output pixels: what does not change from channel to channel. */
typedef struct {
  const uint32_t *windows, *places;
  int32_t vectors, rest; /* 8 and 12, as the assembly knows: so many fours of sums, and some more */
  int32_t low, high;
  int32_t up; /* 24: of the channel, where QCC_UP is 1 */
} pixels;

/* `count` columns of four rows. */
static __attribute__((noinline)) int8_t *interleave(const int8_t *const *rows, const int32_t *steps, int32_t count, int32_t width,
                                                    int8_t *to) {
  const int8_t *x0 = rows[0], *x1 = rows[1], *x2 = rows[2], *x3 = rows[3];
  const int32_t step0 = steps[0], step1 = steps[1], step2 = steps[2], step3 = steps[3];
#define QCC_OPERANDS                                                                               \
  : [to] "+r"(to), [x0] "+r"(x0), [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3)                      \
  : [step0] "r"(step0), [step1] "r"(step1), [step2] "r"(step2), [step3] "r"(step3), [count] "m"(count), \
    [width] "m"(width)                                                                             \
  : "lr", "q0", "q1", "q2", "q3", "memory"
  if (width >= BLOCK) {
    __asm__ volatile(QCC_INTERLEAVE(QCC_WHOLE) QCC_OPERANDS);
  } else {
    __asm__ volatile("ldr lr, %[width]\n\tvctp.8 lr\n\t" QCC_INTERLEAVE(QCC_SOME) QCC_OPERANDS);
  }
#undef QCC_OPERANDS
  return to;
}

/* The columns of one group of rows, of up to 16 channels; y: of the input, the first row of the first window. */
static int8_t *interleave_rows(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y, int32_t width, int8_t *to) {
  const int32_t columns = (p->output_width - 1) * p->stride_width + 2 * p->dilation_width + 1;
  const int32_t left = qcc_dsp_clamp(p->pad_left, 0, columns);
  const int32_t count = qcc_dsp_clamp(p->input_width, 0, columns - left);
  const int8x16_t padding = vdupq_n_s8((int8_t)p->pad_value);
  int8_t pad[BLOCK];
  const int8_t *x[ROWS];
  int32_t step[ROWS];
  vst1q_s8(pad, padding);
  for (int32_t a = 0; a < ROWS; ++a) {
    const int32_t row = y + a * p->dilation_height;
    const int32_t inside = row >= 0 && row < p->input_height;
    x[a] = inside ? input + (ptrdiff_t)row * p->input_width * p->input_channels : pad;
    step[a] = inside ? p->input_channels : 0;
  }
  for (int32_t i = left * ROWS; i > 0; --i, to += BLOCK) {
    vst1q_s8(to, padding);
  }
  to = interleave(x, step, count, width, to);
  for (int32_t i = (columns - left - count) * ROWS; i > 0; --i, to += BLOCK) {
    vst1q_s8(to, padding);
  }
  return to;
}

/* One vector: the words of a window's columns. */
#define QCC_WINDOW                           \
  "vldrw.32 q1, [%[windows]], #16\n\t"       \
  "vldrw.u32 q0, [%[x], q1]\n\t"
/* Four sums into q0: one of each of four windows, or two rows of each of two. */
#define QCC_ONE_ROW                                                      \
  QCC_WINDOW "vmladav.s8 %[s0], q0, %q[w]\n\t"                           \
  QCC_WINDOW "vmladav.s8 %[s1], q0, %q[w]\n\t"                           \
  QCC_WINDOW "vmladav.s8 %[s2], q0, %q[w]\n\t"                           \
  QCC_WINDOW "vmladav.s8 %[s3], q0, %q[w]\n\t"
#define QCC_TWO_ROWS                                                     \
  QCC_WINDOW "vmladav.s8 %[s0], q0, %q[w]\n\tvmladav.s8 %[s1], q0, %q[below]\n\t" \
  QCC_WINDOW "vmladav.s8 %[s2], q0, %q[w]\n\tvmladav.s8 %[s3], q0, %q[below]\n\t"
/* Moves the sums up. */
#if QCC_UP
#define QCC_MOVE_UP                          \
  "ldr %[s0], [%[p], #24]\n\t"               \
  "vshl.s32 q0, %[s0]\n\t"
#else
#define QCC_MOVE_UP
#endif
#define QCC_REQUANTIZE                       \
  "vmov q0[2], q0[0], %[s0], %[s2]\n\t"      \
  "vmov q0[3], q0[1], %[s1], %[s3]\n\t"      \
  "vldrw.32 q1, [%[places]], #16\n\t"        \
  "vadd.i32 q0, q0, %[bias]\n\t" QCC_MOVE_UP \
  "vmulh.s32 q0, q0, %q[multiplier]\n\t"     \
  "vadd.i32 q0, q0, %[rounding]\n\t"         \
  "vshl.s32 q0, q0, %q[shift]\n\t"           \
  "vmin.s32 q0, q0, %q[high]\n\t"            \
  "vmax.s32 q0, q0, %q[low]\n\t"
/* All sums of a channel, the last vector's in part. Compilers are not told of predicates: none lasts. */
#define QCC_CHANNEL(sums)                    \
  "ldr %[s0], [%[p], #8]\n\t"                \
  "wls lr, %[s0], 2f\n"                      \
  "1:\n\t" sums QCC_REQUANTIZE               \
  "vstrb.32 q0, [%[y], q1]\n\t"              \
  "le lr, 1b\n"                              \
  "2:\n\t"                                   \
  "ldr %[s0], [%[p], #12]\n\t"               \
  "cmp %[s0], #0\n\t"                        \
  "beq 3f\n\t" sums QCC_REQUANTIZE           \
  "ldr %[s0], [%[p], #12]\n\t"               \
  "vctp.32 %[s0]\n\t"                        \
  "vpst\n\t"                                 \
  "vstrbt.32 q0, [%[y], q1]\n"               \
  "3:\n\t"

/* One channel of all pixels: x is its first word, y its output. */
static inline __attribute__((always_inline)) void compute_channel(const pixels *p, const int8_t *x, const int8_t *weights,
                                                                  const int32_t *constants, int8_t *y, int32_t rows) {
  const uint32_t *windows = p->windows, *places = p->places;
  const int32x4_t w = vsetq_lane_s32(0, vreinterpretq_s32_s8(vldrbq_s8(weights)), 3);
  const int32x4_t below = vshlq_n_s32(w, 8);
  const int32x4_t multiplier = vdupq_n_s32(constants[QCC_MVE_CHANNEL - 3]), shift = vdupq_n_s32(constants[QCC_MVE_CHANNEL - 1]);
  const int32x4_t low = vdupq_n_s32(p->low), high = vdupq_n_s32(p->high);
  int32_t s0, s1, s2, s3;
#define QCC_OPERANDS                                                                                                 \
  : [windows] "+r"(windows), [places] "+r"(places), [s0] "=&Te"(s0), [s1] "=&Te"(s1), [s2] "=&Te"(s2), [s3] "=&Te"(s3) \
  : [p] "r"(p), [x] "r"(x), [y] "r"(y), [w] "w"(w), [below] "w"(below), [bias] "r"(constants[0]),                    \
    [multiplier] "w"(multiplier), [rounding] "r"(constants[QCC_MVE_CHANNEL - 2]), [shift] "w"(shift), [low] "w"(low), [high] "w"(high) \
  : "lr", "q0", "q1", "cc", "memory"
  if (rows == 2) {
    __asm__ volatile(QCC_CHANNEL(QCC_TWO_ROWS) QCC_OPERANDS);
  } else {
    __asm__ volatile(QCC_CHANNEL(QCC_ONE_ROW) QCC_OPERANDS);
  }
#undef QCC_OPERANDS
}

/* Where the windows of a band's pixels are, and where its output goes, from the first byte of the output; returns the sums. */
static int32_t place_pixels(const qcc_dsp_conv2d_params *p, int32_t rows, int32_t first, int32_t end, uint32_t *windows,
                            uint32_t *places) {
  const int32_t columns = (p->output_width - 1) * p->stride_width + 2 * p->dilation_width + 1;
  const uint32_t right = (uint32_t)(p->dilation_width * WORDS), channels = (uint32_t)p->output_channels;
  int32_t count = 0;
  for (int32_t group = first; group < end; ++group) {
    const int32_t y = qcc_dsp_clamp(group * rows, 0, p->output_height - rows) - first * rows;
    uint32_t at = (uint32_t)((group - first) * columns * WORDS), to = (uint32_t)(y * p->output_width) * channels;
    for (int32_t x = 0; x < p->output_width; ++x, at += (uint32_t)(p->stride_width * WORDS), to += channels) {
      *windows++ = at;
      *windows++ = at + right;
      *windows++ = at + 2 * right;
      *windows++ = at;
      for (int32_t row = 0; row < rows; ++row) {
        places[count++] = to + (uint32_t)(row * p->output_width) * channels;
      }
    }
  }
  for (int32_t i = (end - first) * p->output_width; i % FOUR != 0; ++i) { /* what fills the last vector is not stored */
    for (int32_t lane = 0; lane < FOUR; ++lane) {
      *windows++ = 0;
    }
  }
  return count;
}

/* QCC_DEPTHWISE: the name of the kernel. */
void QCC_DEPTHWISE(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *QCC_RESTRICT weights,
                   const int32_t *QCC_RESTRICT channels, int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  const int32_t rows = p.stride_height == 1 && p.dilation_height == 1 && p.output_height > 1 ? 2 : 1;
  const int32_t groups = (p.output_height + rows - 1) / rows, row = p.output_width * p.output_channels;
  const int32_t columns = (p.output_width - 1) * p.stride_width + 2 * p.dilation_width + 1;
  int8_t *const words = (int8_t *)workspace;
  uint32_t *const windows = (uint32_t *)workspace + p.band * columns * BLOCK;
  uint32_t *const places = windows + FOUR * ((p.band * p.output_width + FOUR - 1) / FOUR * FOUR);
  for (int32_t n = 0; n < p.batch; ++n) {
    for (int32_t first = 0; first < groups; first += p.band) {
      const int32_t end = qcc_dsp_clamp(first + p.band, 0, groups);
      const int32_t sums = place_pixels(&p, rows, first, end, windows, places);
      pixels all = {windows, places, sums / FOUR, sums % FOUR, p.low, p.high, 0};
      for (int32_t c = 0; c < p.output_channels; c += BLOCK) {
        const int32_t width = qcc_dsp_clamp(p.output_channels - c, 0, BLOCK);
        int8_t *to = words, *const y = output + (ptrdiff_t)first * rows * row + c;
        for (int32_t group = first; group < end; ++group) {
          const int32_t top = qcc_dsp_clamp(group * rows, 0, p.output_height - rows);
          to = interleave_rows(&p, input + c, top * p.stride_height - p.pad_top, width, to);
        }
        for (int32_t i = 0; i < width; ++i) {
          const int8_t *const w = weights + (c + i) * 3 * ROWS;
          const int32_t *const constants = channels + (c + i) * QCC_MVE_CHANNEL;
          if (QCC_UP) {
            all.up = constants[1];
          }
          if (rows == 2) {
            compute_channel(&all, words + i * ROWS, w, constants, y + i, 2);
          } else {
            compute_channel(&all, words + i * ROWS, w, constants, y + i, 1);
          }
        }
      }
    }
    input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
    output += (ptrdiff_t)p.output_height * row;
  }
}

#endif
