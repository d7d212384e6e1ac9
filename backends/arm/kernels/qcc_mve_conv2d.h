/* 2-D convolution with requantization and an optional residual operand, on vectors of 16 bytes.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[output_channels / 4][taps / 16][4 channels][16 taps], both zero-padded; a tap is one weight of a filter
 * channels int32[output_channels / 4][QCC_MVE_CHANNEL][4], see qcc_arm_mve.h; all zero_points are folded in the bias
 * skip_multiplier  int32[output_channels], zero-padded to a multiple of 4, or NULL
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip, and over the input where
 *          the kernel is 1x1 with strides of 1 and there are no more output channels than input channels
 * workspace  int8[2 pixels][taps rounded up to 16]; s8_conv2d_short_mve has none: its columns have up to 64 taps, or it is
 *          1x1 with strides of 1, its taps are a multiple of 16, and the output is elsewhere: it reads the input
 *
 *   acc = bias[o] + sum w[o][a][b][c] * x'[...] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. The inputs of two output pixels are copied into columns; then four channels
 * at a time take 128 products from six loads. What a column has beyond its taps meets weights of 0.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_MVE_CONV2D_H
#define QCC_MVE_CONV2D_H

#include "qcc_arm_mve.h"

enum { VECTOR = 16, FOUR = 4, SHORT = 64 };

/* The loops turn off the lanes that the last vector has too many. */
static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
  __asm__ volatile(
      "wlstp.8 lr, %[count], 2f\n"
      "1:\n\t"
      "vldrb.8 q0, [%[from]], #16\n\t"
      "vstrb.8 q0, [%[to]], #16\n\t"
      "letp lr, 1b\n"
      "2:\n\t"
      : [to] "+r"(to), [from] "+r"(from)
      : [count] "r"(count)
      : "lr", "q0", "memory");
}

static inline void fill_bytes(int8_t *to, int32_t value, int32_t count) {
  __asm__ volatile(
      "vdup.8 q0, %[value]\n\t"
      "wlstp.8 lr, %[count], 2f\n"
      "1:\n\t"
      "vstrb.8 q0, [%[to]], #16\n\t"
      "letp lr, 1b\n"
      "2:\n\t"
      : [to] "+r"(to)
      : [count] "r"(count), [value] "r"(value)
      : "lr", "q0", "memory");
}

/* `rows` rows of up to 16 bytes. */
static inline void copy_short_rows(int8_t *to, int32_t to_pitch, const int8_t *from, int32_t from_pitch, int32_t bytes,
                                   int32_t rows) {
  __asm__ volatile(
      "vctp.8 %[bytes]\n\t"
      "wls lr, %[rows], 2f\n"
      "1:\n\t"
      "vpstt\n\t"
      "vldrbt.8 q0, [%[from]]\n\t"
      "vstrbt.8 q0, [%[to]]\n\t"
      "add %[from], %[from_pitch]\n\t"
      "add %[to], %[to_pitch]\n\t"
      "le lr, 1b\n"
      "2:\n\t"
      : [to] "+r"(to), [from] "+r"(from)
      : [bytes] "r"(bytes), [rows] "r"(rows), [to_pitch] "r"(to_pitch), [from_pitch] "r"(from_pitch)
      : "lr", "q0", "memory");
}

/* The column of the output pixel whose tap (0, 0) is at (y0, x0). */
static void fill_column(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y0, int32_t x0, int8_t *column) {
  const int32_t channels = p->input_channels, run = p->kernel_width * channels;
  const qcc_mve_range rows = qcc_mve_taps_inside(y0, p->kernel_height, p->dilation_height, p->input_height);
  const qcc_mve_range columns = qcc_mve_taps_inside(x0, p->kernel_width, p->dilation_width, p->input_width);
  if (rows.end - rows.first < p->kernel_height || columns.end - columns.first < p->kernel_width) {
    fill_bytes(column, p->pad_value, p->kernel_height * run);
  }
  const int32_t pitch = p->dilation_height * p->input_width * channels;
  const int32_t y = y0 + rows.first * p->dilation_height, x = x0 + columns.first * p->dilation_width;
  const int32_t bytes = (columns.end - columns.first) * channels;
  const int8_t *from = input + ((ptrdiff_t)y * p->input_width + x) * channels;
  int8_t *to = column + rows.first * run + columns.first * channels;
  if (p->dilation_width == 1 && bytes <= VECTOR) {
    copy_short_rows(to, run, from, pitch, bytes, rows.end - rows.first);
    return;
  }
  for (int32_t a = rows.first; a < rows.end; ++a, from += pitch, to += run) {
    if (p->dilation_width == 1) {
      copy_bytes(to, from, bytes);
    } else {
      for (int32_t b = 0; b < columns.end - columns.first; ++b) {
        copy_bytes(to + b * channels, from + b * p->dilation_width * channels, channels);
      }
    }
  }
}

/* What all pixels share. */
typedef struct {
  const int8_t *weights;
  const int32_t *channels, *skip_multiplier;
  int32_t vectors, outputs, low, high;
} layer;

/* Two pixels, which may be the same, while channels are computed: the assembly knows where the members are. */
typedef struct {
  const int8_t *x[2];      /* 0 */
  int8_t *y[2];            /* 8 */
  const int8_t *skip[2];   /* 16, or NULL */
  const int32_t *channels; /* 24 */
  int32_t left;            /* 28: channels to come */
  const int32_t *multiplier; /* 32: of the residual operand */
  int32_t vectors;         /* 36 */
} tile;

/* Six loads and eight dot products of one vector of taps: `dot` is vmladav or vmladava. */
#define QCC_DOTS(dot)                      \
  "vldrb.8 q0, [%[x0]], #16\n\t"           \
  "vldrb.8 q2, [%[w]], #16\n\t"            \
  dot ".s8 %[s00], q0, q2\n\t"             \
  "vldrb.8 q1, [%[x1]], #16\n\t"           \
  dot ".s8 %[s10], q1, q2\n\t"             \
  "vldrb.8 q3, [%[w]], #16\n\t"            \
  dot ".s8 %[s01], q0, q3\n\t"             \
  "vldrb.8 q2, [%[w]], #16\n\t"            \
  dot ".s8 %[s11], q1, q3\n\t"             \
  dot ".s8 %[s02], q0, q2\n\t"             \
  "vldrb.8 q3, [%[w]], #16\n\t"            \
  dot ".s8 %[s12], q1, q2\n\t"             \
  dot ".s8 %[s03], q0, q3\n\t"             \
  dot ".s8 %[s13], q1, q3\n\t"

/* Adds the residual operand to the sums in q0 and q1. */
#define QCC_SKIP                           \
  "ldr %[n], [%[t], #32]\n\t"              \
  "vldrw.32 q2, [%[n]], #16\n\t"           \
  "str %[n], [%[t], #32]\n\t"              \
  "ldrd %[x0], %[x1], [%[t], #16]\n\t"     \
  "vctp.32 %[s02]\n\t"                     \
  "vpst\n\t"                               \
  "vldrbt.s32 q3, [%[x0]], #4\n\t"         \
  "vmul.i32 q3, q3, q2\n\t"                \
  "vadd.i32 q0, q0, q3\n\t"                \
  "vpst\n\t"                               \
  "vldrbt.s32 q3, [%[x1]], #4\n\t"         \
  "vmul.i32 q3, q3, q2\n\t"                \
  "vadd.i32 q1, q1, q3\n\t"                \
  "strd %[x0], %[x1], [%[t], #16]\n\t"

/* Moves the sums up. */
#if QCC_UP
#define QCC_MOVE_UP                        \
  "vldrw.32 q2, [%[s00]], #16\n\t"         \
  "vshl.s32 q0, q0, q2\n\t"                \
  "vshl.s32 q1, q1, q2\n\t"
#else
#define QCC_MOVE_UP
#endif

/* All channels, four at a time. The sums need all even registers, lr too: no low-overhead loop. Then two of them hold
 * `channels` and `left`. */
#define QCC_TILE(skip)                     \
  "1:\n\t"                                 \
  "ldrd %[x0], %[x1], [%[t]]\n\t"          \
  "ldr %[n], [%[t], #36]\n\t"              \
  QCC_DOTS("vmladav")                      \
  "subs %[n], #1\n\t"                      \
  "beq 3f\n"                               \
  "2:\n\t" QCC_DOTS("vmladava")            \
  "subs %[n], #1\n\t"                      \
  "bne 2b\n"                               \
  "3:\n\t"                                 \
  "vmov q0[2], q0[0], %[s00], %[s02]\n\t"  \
  "ldrd %[s00], %[s02], [%[t], #24]\n\t"   \
  "vmov q0[3], q0[1], %[s01], %[s03]\n\t"  \
  "vldrw.32 q2, [%[s00]], #16\n\t"         \
  "vmov q1[2], q1[0], %[s10], %[s12]\n\t"  \
  "vadd.i32 q0, q0, q2\n\t"                \
  "vmov q1[3], q1[1], %[s11], %[s13]\n\t"  \
  "vadd.i32 q1, q1, q2\n\t" skip QCC_MOVE_UP \
  "vldrw.32 q3, [%[s00]], #16\n\t"         \
  "vmulh.s32 q0, q0, q3\n\t"               \
  "vmulh.s32 q1, q1, q3\n\t"               \
  "vldrw.32 q2, [%[s00]], #16\n\t"         \
  "vadd.i32 q0, q0, q2\n\t"                \
  "vadd.i32 q1, q1, q2\n\t"                \
  "vldrw.32 q3, [%[s00]], #16\n\t"         \
  "vshl.s32 q0, q0, q3\n\t"                \
  "vshl.s32 q1, q1, q3\n\t"                \
  "vmin.s32 q0, q0, %q[high]\n\t"          \
  "vmin.s32 q1, q1, %q[high]\n\t"          \
  "vmax.s32 q0, q0, %q[low]\n\t"           \
  "vmax.s32 q1, q1, %q[low]\n\t"           \
  "ldrd %[x0], %[x1], [%[t], #8]\n\t"      \
  "vctp.32 %[s02]\n\t"                     \
  "vpstt\n\t"                              \
  "vstrbt.32 q1, [%[x1]], #4\n\t"          \
  "vstrbt.32 q0, [%[x0]], #4\n\t"          \
  "strd %[x0], %[x1], [%[t], #8]\n\t"      \
  "subs %[s02], #4\n\t"                    \
  "strd %[s00], %[s02], [%[t], #24]\n\t"   \
  "bgt 1b\n\t"
#define QCC_OPERANDS                                                                                       \
  : [s00] "=&Te"(s00), [s01] "=&Te"(s01), [s02] "=&Te"(s02), [s03] "=&Te"(s03), [s10] "=&Te"(s10),         \
    [s11] "=&Te"(s11), [s12] "=&Te"(s12), [s13] "=&Te"(s13), [w] "+r"(w), [x0] "=&l"(x0), [x1] "=&l"(x1),  \
    [n] "=&r"(n)                                                                                           \
  : [t] "r"(&t), [low] "w"(low), [high] "w"(high)                                                          \
  : "q0", "q1", "q2", "q3", "cc", "memory"

static __attribute__((noinline)) void compute_tile(const layer *l, const int8_t *const *x, const int8_t *skip, int8_t *y,
                                                   ptrdiff_t second) {
  const int8_t *w = l->weights, *x0, *x1;
  tile t = {{x[0], x[1]}, {y, y + second}, {skip, skip ? skip + second : skip}, l->channels, l->outputs,
            l->skip_multiplier, l->vectors};
  const int32x4_t low = vdupq_n_s32(l->low), high = vdupq_n_s32(l->high);
  int32_t n, s00, s01, s02, s03, s10, s11, s12, s13;
  if (skip) {
    __asm__ volatile(QCC_TILE(QCC_SKIP) QCC_OPERANDS);
  } else {
    __asm__ volatile(QCC_TILE("") QCC_OPERANDS);
  }
}

/* Without columns, the input is read where it is. */
static void convolve(const qcc_dsp_conv2d_params *p, const layer *l, const int8_t *input, const int8_t *skip, int8_t *output,
                     int8_t *columns) {
  const int32_t taps = p->kernel_height * p->kernel_width * p->input_channels;
  const int32_t pointwise = p->kernel_height * p->kernel_width * p->stride_height * p->stride_width == 1 &&
                            p->input_width == p->output_width && p->input_height == p->output_height;
  int8_t *const to[2] = {columns, columns + l->vectors * VECTOR};
  int32_t oy = 0, ox = 0;
  for (int32_t pixels = p->batch * p->output_height * p->output_width; pixels > 0; pixels -= 2) {
    const int32_t count = pixels > 1 ? 2 : 1; /* the last pixel of an odd number is computed twice */
    const ptrdiff_t second = (count - 1) * p->output_channels;
    const int8_t *x[2] = {columns, to[count - 1]};
    if (!columns) {
      x[0] = input;
      x[1] = input + (count - 1) * taps;
      input += count * taps;
    }
    for (int32_t j = 0; columns && j < count; ++j) {
      if (pointwise) {
        copy_bytes(to[j], input, taps);
        input += taps;
      } else {
        fill_column(p, input, oy * p->stride_height - p->pad_top, ox * p->stride_width - p->pad_left, to[j]);
        if (++ox == p->output_width) {
          ox = 0;
          if (++oy == p->output_height) {
            oy = 0;
            input += (ptrdiff_t)p->input_height * p->input_width * p->input_channels;
          }
        }
      }
    }
    compute_tile(l, x, skip, output, second);
    skip = skip ? skip + count * p->output_channels : skip;
    output += count * p->output_channels;
  }
}

#endif
