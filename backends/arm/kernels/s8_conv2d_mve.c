/* s8_conv2d_mve: 2-D convolution with requantization and an optional residual operand, on vectors of 16 bytes.
 *
 * input    int8[batch][input_height][input_width][input_channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[output_channels / 4][taps / 16][4 channels][16 taps], both zero-padded; a tap is one weight of a filter
 * channels int32[output_channels / 4][4][4], see qcc_arm_mve.h; all zero_points are folded in the bias
 * skip_multiplier  int32[output_channels], zero-padded to a multiple of 4, or NULL
 * output   int8[batch][output_height][output_width][output_channels]; may be written over skip, and over the input where
 *          the kernel is 1x1 with strides of 1 and there are no more output channels than input channels
 * workspace  int8[2 pixels][taps rounded up to 16]
 *
 *   acc = bias[o] + sum w[o][a][b][c] * x'[...] + skip * skip_multiplier[o]
 *   output = requantize(acc), saturated to [low, high]
 *
 * x' is the input surrounded by pad_value. The inputs of two output pixels are copied into columns; then four channels
 * at a time take 128 products from six loads. What a column has beyond its taps meets weights of 0.
 * Accumulator: int32; every partial sum fits, as proved by the compiler.
 * Reference: Conv2d.int_ref in qcc/ir/ops/conv.py, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_arm_mve.h"

enum { VECTOR = 16, FOUR = 4, CONSTANTS = 16 };

/* Both end where the next byte goes. The loops turn off the lanes that the last vector has too many. */
static inline int8_t *copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
  int8_t *at = to;
  __asm__ volatile(
      "wlstp.8 lr, %[count], 2f\n"
      "1:\n\t"
      "vldrb.8 q0, [%[from]], #16\n\t"
      "vstrb.8 q0, [%[to]], #16\n\t"
      "letp lr, 1b\n"
      "2:\n\t"
      : [to] "+r"(at), [from] "+r"(from)
      : [count] "r"(count)
      : "lr", "q0", "memory");
  return to + count;
}

static inline int8_t *fill_bytes(int8_t *to, int32_t value, int32_t count) {
  int8_t *at = to;
  __asm__ volatile(
      "vdup.8 q0, %[value]\n\t"
      "wlstp.8 lr, %[count], 2f\n"
      "1:\n\t"
      "vstrb.8 q0, [%[to]], #16\n\t"
      "letp lr, 1b\n"
      "2:\n\t"
      : [to] "+r"(at)
      : [count] "r"(count), [value] "r"(value)
      : "lr", "q0", "memory");
  return to + count;
}

/* The column of the output pixel whose tap (0, 0) is at (y0, x0). */
static void fill_column(const qcc_dsp_conv2d_params *p, const int8_t *input, int32_t y0, int32_t x0, int8_t *column) {
  const int32_t whole_rows = p->dilation_width == 1;
  const int32_t runs = whole_rows ? 1 : p->kernel_width;
  const int32_t taps = whole_rows ? p->kernel_width : 1;
  const int32_t channels = p->input_channels;
  if (whole_rows && y0 >= 0 && y0 + (p->kernel_height - 1) * p->dilation_height < p->input_height && x0 >= 0 &&
      x0 + taps <= p->input_width) {
    const ptrdiff_t pitch = (ptrdiff_t)p->dilation_height * p->input_width * channels;
    const int8_t *from = input + ((ptrdiff_t)y0 * p->input_width + x0) * channels;
    for (int32_t a = p->kernel_height; a > 0; --a, from += pitch) {
      column = copy_bytes(column, from, taps * channels);
    }
    return;
  }
  for (int32_t a = 0; a < p->kernel_height; ++a) {
    const int32_t y = y0 + a * p->dilation_height;
    const int32_t inside = y >= 0 && y < p->input_height;
    for (int32_t b = 0; b < runs; ++b) {
      const int32_t x = x0 + b * p->dilation_width;
      const int8_t *from = input + ((ptrdiff_t)y * p->input_width + x) * channels;
      if (inside && x >= 0 && x + taps <= p->input_width) {
        column = copy_bytes(column, from, taps * channels);
      } else {
        const int32_t first = inside ? qcc_dsp_clamp(-x, 0, taps) : taps; /* taps before it are padding */
        const int32_t end = qcc_dsp_clamp(p->input_width - x, first, taps);
        column = fill_bytes(column, p->pad_value, first * channels);
        column = copy_bytes(column, from + first * channels, (end - first) * channels);
        column = fill_bytes(column, p->pad_value, (taps - end) * channels);
      }
    }
  }
}

/* Columns of two pixels, and what all channels share. */
typedef struct {
  const int8_t *weights;
  const int32_t *channels;
  const int32_t *skip_multiplier;
  const int8_t *x0, *x1;
  int32_t vectors, outputs;
  int32_t low, high;
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

/* All channels of two pixels, which may be the same. */
static inline __attribute__((always_inline)) void compute_tile(const tile *t, const int8_t *skip0, const int8_t *skip1,
                                                               int8_t *y0, int8_t *y1) {
  const int8_t *w = t->weights;
  const int32_t *channels = t->channels, *skip_multiplier = t->skip_multiplier;
  const int32x4_t low = vdupq_n_s32(t->low), high = vdupq_n_s32(t->high);
  for (int32_t left = t->outputs; left > 0; left -= FOUR) {
    const int8_t *x0 = t->x0, *x1 = t->x1;
    int32x4_t acc0, acc1;
    int32_t n = t->vectors, s00, s01, s02, s03, s10, s11, s12, s13;
    __asm__(/* the sums need all even registers, lr too: no low-overhead loop */
            QCC_DOTS("vmladav")
            "subs %[n], #1\n\t"
            "beq 2f\n"
            "1:\n\t" QCC_DOTS("vmladava")
            "subs %[n], #1\n\t"
            "bne 1b\n"
            "2:\n\t"
            : [s00] "=&Te"(s00), [s01] "=&Te"(s01), [s02] "=&Te"(s02), [s03] "=&Te"(s03), [s10] "=&Te"(s10),
              [s11] "=&Te"(s11), [s12] "=&Te"(s12), [s13] "=&Te"(s13), [w] "+r"(w), [x0] "+r"(x0), [x1] "+r"(x1),
              [n] "+r"(n)
            :
            : "q0", "q1", "q2", "q3", "cc", "memory");
    __asm__("vmov q0[2], q0[0], %[s00], %[s02]\n\t"
            "vldrw.32 q2, [%[channels]]\n\t"
            "vmov q0[3], q0[1], %[s01], %[s03]\n\t"
            "vadd.i32 %q[acc0], q0, q2\n\t"
            "vmov q1[2], q1[0], %[s10], %[s12]\n\t"
            "vmov q1[3], q1[1], %[s11], %[s13]\n\t"
            "vadd.i32 %q[acc1], q1, q2\n\t"
            : [acc0] "=w"(acc0), [acc1] "=w"(acc1)
            : [s00] "r"(s00), [s01] "r"(s01), [s02] "r"(s02), [s03] "r"(s03), [s10] "r"(s10), [s11] "r"(s11),
              [s12] "r"(s12), [s13] "r"(s13), [channels] "r"(channels)
            : "q0", "q1", "q2", "memory");
    if (skip0) {
      const mve_pred16_t some = vctp32q((uint32_t)left);
      const int32x4_t m = vldrwq_s32(skip_multiplier);
      acc0 = vaddq_s32(acc0, vmulq_s32(vldrbq_z_s32(skip0, some), m));
      acc1 = vaddq_s32(acc1, vmulq_s32(vldrbq_z_s32(skip1, some), m));
      skip0 += FOUR;
      skip1 += FOUR;
      skip_multiplier += FOUR;
    }
    __asm__ volatile(
        "vldrw.32 q0, [%[channels], #16]\n\t"
        "vmulh.s32 %q[acc0], %q[acc0], q0\n\t"
        "vmulh.s32 %q[acc1], %q[acc1], q0\n\t"
        "vldrw.32 q1, [%[channels], #32]\n\t"
        "vadd.i32 %q[acc0], %q[acc0], q1\n\t"
        "vadd.i32 %q[acc1], %q[acc1], q1\n\t"
        "vldrw.32 q0, [%[channels], #48]\n\t"
        "vshl.s32 %q[acc0], %q[acc0], q0\n\t"
        "vshl.s32 %q[acc1], %q[acc1], q0\n\t"
        "vmin.s32 %q[acc0], %q[acc0], %q[high]\n\t"
        "vmin.s32 %q[acc1], %q[acc1], %q[high]\n\t"
        "vmax.s32 %q[acc0], %q[acc0], %q[low]\n\t"
        "vmax.s32 %q[acc1], %q[acc1], %q[low]\n\t"
        "vctp.32 %[left]\n\t"
        "vpstt\n\t"
        "vstrbt.32 %q[acc1], [%[y1]], #4\n\t"
        "vstrbt.32 %q[acc0], [%[y0]], #4\n\t"
        : [acc0] "+w"(acc0), [acc1] "+w"(acc1), [y0] "+l"(y0), [y1] "+l"(y1)
        : [channels] "r"(channels), [low] "w"(low), [high] "w"(high), [left] "r"(left)
        : "q0", "q1", "memory");
    channels += CONSTANTS;
  }
}

/* Two functions, so that the one without a residual operand has registers enough. */
static __attribute__((noinline)) void compute_sum(const tile *t, const int8_t *skip0, const int8_t *skip1, int8_t *y0,
                                                  int8_t *y1) {
  compute_tile(t, skip0, skip1, y0, y1);
}

static __attribute__((noinline)) void compute_plain(const tile *t, int8_t *y0, int8_t *y1) {
  compute_tile(t, NULL, NULL, y0, y1);
}

void qcc_s8_conv2d_mve(const qcc_dsp_conv2d_params *params, const int8_t *input, const int8_t *skip,
                       const int8_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT channels,
                       const int32_t *QCC_RESTRICT skip_multiplier, int8_t *output, void *workspace) {
  const qcc_dsp_conv2d_params p = *params;
  const int32_t taps = p.kernel_height * p.kernel_width * p.input_channels;
  const int32_t vectors = (taps + VECTOR - 1) / VECTOR;
  const int32_t pointwise = p.kernel_height * p.kernel_width * p.stride_height * p.stride_width == 1 &&
                            p.input_width == p.output_width && p.input_height == p.output_height;
  int8_t *const columns[2] = {(int8_t *)workspace, (int8_t *)workspace + vectors * VECTOR};
  tile t = {weights, channels, skip_multiplier, columns[0], columns[1], vectors, p.output_channels, p.low, p.high};
  int32_t oy = 0, ox = 0;
  for (int32_t pixels = p.batch * p.output_height * p.output_width; pixels > 0; pixels -= 2) {
    const int32_t count = pixels > 1 ? 2 : 1;
    for (int32_t j = 0; j < count; ++j) {
      if (pointwise) {
        (void)copy_bytes(columns[j], input, taps);
        input += taps;
      } else {
        fill_column(&p, input, oy * p.stride_height - p.pad_top, ox * p.stride_width - p.pad_left, columns[j]);
        if (++ox == p.output_width) {
          ox = 0;
          if (++oy == p.output_height) {
            oy = 0;
            input += (ptrdiff_t)p.input_height * p.input_width * p.input_channels;
          }
        }
      }
    }
    const ptrdiff_t second = (count - 1) * p.output_channels; /* 0: the last pixel is computed twice */
    t.x1 = columns[count - 1];
    if (skip) {
      compute_sum(&t, skip, skip + second, output, output + second);
      skip += count * p.output_channels;
    } else {
      compute_plain(&t, output, output + second);
    }
    output += count * p.output_channels;
  }
}
