/* 2-D convolution of few input channels with 16 bits, requantization and a residual operand.
 *
 * input    int16 [batch][input_height][input_width][input_channels]
 * skip     int8 or int16, as the output, or NULL
 * weights  int16[blocks][kernel_height][kernel_width][input_channels][16]: blocks of 16 output channels, zero where there is
 *          none
 * bias     int32[output channels rounded up to 16], all zero_points folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    int32[the same / 4][3][4], see qcc_neon_wide.h
 * output   int8 or int16 [batch][output_height][output_width][output_channels]; may be written over a skip of its type
 * workspace  int16[kernel_height][input columns that up to 64 output pixels of a row see][input_channels], and 3 more
 *
 * The rows that some pixels of an output row see are copied with their padding; then each tap meets 16 output channels.
 * Accumulator: int32, wraps around; the compiler proves where it ends.
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_neon_copy.h"
#include "qcc_neon_wide_finish.h"

enum { QCC_DIRECT_COLUMNS = 64 };

#if defined(__aarch64__)
enum { QCC_DIRECT_PIXELS = 4 };
#define QCC_DIRECT_HIGH(acc, w, x, lane) vmlal_high_lane_s16(acc, w, x, lane)
#else /* half as many registers */
enum { QCC_DIRECT_PIXELS = 2 };
#define QCC_DIRECT_HIGH(acc, w, x, lane) vmlal_lane_s16(acc, vget_high_s16(w), x, lane)
#endif

/* The copy as the tiles see it, in elements: `runs` of `taps` elements that lie behind each other. */
typedef struct {
  ptrdiff_t pixel;               /* from output pixel to pixel */
  ptrdiff_t run_step, line_step; /* from the last whole four taps of a run to the next; and more at the end of a kernel row */
  int32_t lines, runs, taps;
} qcc_direct_band;

/* acc += one element of each pixel times its 16 weights. */
#define QCC_DIRECT_TAP(lane)                                                        \
  do {                                                                              \
    const int16x8_t low = vld1q_s16(w), high = vld1q_s16(w + 8);                    \
    w += 16;                                                                        \
    QCC_UNROLL                                                                      \
    for (int r = 0; r < rows; ++r) {                                                \
      int32x4_t *const a = acc + 4 * r;                                             \
      a[0] = vmlal_lane_s16(a[0], vget_low_s16(low), x[r], lane);                   \
      a[1] = QCC_DIRECT_HIGH(a[1], low, x[r], lane);                                \
      a[2] = vmlal_lane_s16(a[2], vget_low_s16(high), x[r], lane);                  \
      a[3] = QCC_DIRECT_HIGH(a[3], high, x[r], lane);                               \
    }                                                                               \
  } while (0)

#define QCC_DIRECT_LOAD()                                                           \
  QCC_UNROLL                                                                        \
  for (int r = 0; r < rows; ++r) {                                                  \
    x[r] = vld1_s16(run + r * b.pixel);                                            \
  }

/* All channels of `rows` pixels at a time, while so many of `pixels` are left. `from`: the taps of the first; `at`: element of
 * its output. Both move on; returns how many are left. */
QCC_INLINE int32_t qcc_direct_tiles(const int rows, const qcc_direct_band *band, const qcc_neon_wide_layer *layer,
                                    int32_t pixels, const int16_t **from, const int16_t *weights, const void *skip,
                                    void *output, ptrdiff_t *at) {
  const qcc_direct_band b = *band;
  const qcc_neon_wide_layer l = *layer;
  const int16_t *start = *from;
  ptrdiff_t to = *at;
  for (; pixels >= rows; pixels -= rows, start += rows * b.pixel, to += rows * (ptrdiff_t)l.outputs) {
    const int16_t *w = weights;
    for (int32_t o = 0; o < l.outputs; o += 16) {
      const int16_t *run = start;
      int32x4_t acc[4 * QCC_DIRECT_PIXELS];
      QCC_UNROLL
      for (int i = 0; i < 4 * rows; ++i) {
        acc[i] = vld1q_s32(l.bias + o + i % 4 * 4);
      }
      for (int32_t line = b.lines; line > 0; --line, run += b.line_step) {
        for (int32_t i = b.runs; i > 0; --i, run += b.run_step) {
          int16x4_t x[QCC_DIRECT_PIXELS];
          int32_t left = b.taps;
          for (; left >= 4; left -= 4, run += 4) {
            QCC_DIRECT_LOAD()
            QCC_DIRECT_TAP(0);
            QCC_DIRECT_TAP(1);
            QCC_DIRECT_TAP(2);
            QCC_DIRECT_TAP(3);
          }
          if (left > 0) {
            QCC_DIRECT_LOAD()
            QCC_DIRECT_TAP(0);
            if (left > 1) {
              QCC_DIRECT_TAP(1);
            }
            if (left > 2) {
              QCC_DIRECT_TAP(2);
            }
          }
        }
      }
      qcc_neon_wide_finish(rows, &l, acc, o, skip, output, to);
    }
  }
  *from = start;
  *at = to;
  return pixels;
}

static __attribute__((noinline)) int32_t qcc_direct_some(const qcc_direct_band *b, const qcc_neon_wide_layer *l, int32_t pixels,
                                                         const int16_t **from, const int16_t *weights, const void *skip,
                                                         void *output, ptrdiff_t *at) {
  return qcc_direct_tiles(QCC_DIRECT_PIXELS, b, l, pixels, from, weights, skip, output, at);
}

static __attribute__((noinline)) int32_t qcc_direct_singly(const qcc_direct_band *b, const qcc_neon_wide_layer *l,
                                                           int32_t pixels, const int16_t **from, const int16_t *weights,
                                                           const void *skip, void *output, ptrdiff_t *at) {
  return qcc_direct_tiles(1, b, l, pixels, from, weights, skip, output, at);
}

static int16_t *qcc_direct_pad(int16_t *to, int32_t value, ptrdiff_t count) {
  for (; count > 0; --count) {
    *to++ = (int16_t)value;
  }
  return to;
}

/* `width` pixels of the image from (y, x) on, with padding. */
static int16_t *qcc_direct_copy(const qcc_neon_wide_conv2d_params *p, const int16_t *image, int32_t y, int32_t x, int32_t width,
                                int16_t *to) {
  const ptrdiff_t c = p->input_channels;
  const int32_t outside = x < 0 ? -x : 0;
  const int32_t left = outside < width ? outside : width;
  const int32_t beyond = p->input_width - (x + left), room = width - left;
  const int32_t inside = y < 0 || y >= p->input_height || beyond < 0 ? 0 : beyond < room ? beyond : room;
  to = qcc_direct_pad(to, p->pad_value, (inside > 0 ? left : width) * c);
  if (inside > 0) {
    const int16_t *from = image + ((ptrdiff_t)y * p->input_width + x + left) * c;
    qcc_copy((int8_t *)to, (const int8_t *)from, 2 * inside * c);
    to = qcc_direct_pad(to + inside * c, p->pad_value, (room - inside) * c);
  }
  return to;
}

void qcc_s16_conv2d_direct_neon(const qcc_neon_wide_conv2d_params *params, const void *QCC_RESTRICT input, const void *skip,
                                const int16_t *QCC_RESTRICT weights, const int32_t *QCC_RESTRICT bias,
                                const int32_t *QCC_RESTRICT skip_multiplier, const int32_t *QCC_RESTRICT scale,
                                void *output, void *workspace) {
  const qcc_neon_wide_conv2d_params p = *params;
  const qcc_neon_wide_layer layer = {bias,         skip_multiplier, scale, p.output_channels, p.skip_bytes,
                                     p.output_bytes, qcc_neon_wide_saturation(p.output_zero_point, p.low, p.high)};
  const int16_t *image = (const int16_t *)input;
  int16_t *const copy = (int16_t *)workspace;
  const int32_t c = p.input_channels, joined = p.dilation_width == 1;
  qcc_direct_band band;
  band.pixel = (ptrdiff_t)p.stride_width * c;
  band.lines = p.kernel_height;
  band.runs = joined ? 1 : p.kernel_width;
  band.taps = joined ? p.kernel_width * c : c;
  band.run_step = (ptrdiff_t)p.dilation_width * c - band.taps / 4 * 4;
  ptrdiff_t at = 0;
  for (int32_t n = 0; n < p.batch; ++n, image += (ptrdiff_t)p.input_height * p.input_width * c) {
    for (int32_t oy = 0; oy < p.output_height; ++oy) {
      for (int32_t ox = 0; ox < p.output_width; ox += QCC_DIRECT_COLUMNS) {
        int32_t pixels = p.output_width - ox < QCC_DIRECT_COLUMNS ? p.output_width - ox : QCC_DIRECT_COLUMNS;
        const int32_t width = (pixels - 1) * p.stride_width + (p.kernel_width - 1) * p.dilation_width + 1;
        const int16_t *from = copy;
        int16_t *to = copy;
        for (int32_t a = 0; a < p.kernel_height; ++a) {
          to = qcc_direct_copy(&p, image, oy * p.stride_height - p.pad_top + a * p.dilation_height,
                               ox * p.stride_width - p.pad_left, width, to);
        }
        (void)qcc_direct_pad(to, 0, 3); /* loaded, not used */
        band.line_step = (ptrdiff_t)width * c - band.runs * (ptrdiff_t)p.dilation_width * c;
        pixels = qcc_direct_some(&band, &layer, pixels, &from, weights, skip, output, &at);
        (void)qcc_direct_singly(&band, &layer, pixels, &from, weights, skip, output, &at);
      }
    }
  }
}
