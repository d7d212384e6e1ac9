/* What convolutions by tiles share: the image as the tiles see it, their results, and the walk over images and channels. */
#ifndef QCC_NEON_TILES_H
#define QCC_NEON_TILES_H

#include "qcc_neon_image.h"

/* The image as the tiles see it. */
typedef struct {
  ptrdiff_t pixel, row;           /* bytes from output pixel to pixel, from row to row */
  int32_t runs, all_runs;         /* of a kernel row, of the filter */
  int32_t chunks, groups;         /* whole 16 bytes of a run, and groups of taps behind them */
  ptrdiff_t run_step, line_step;  /* bytes from run to run; and more at the end of a kernel row */
  ptrdiff_t tail;                 /* from a run to the 16 bytes that hold its last groups */
  ptrdiff_t output_step, output_row;
  int32_t channels, clamps;       /* of this block: up to 16; clamps: low and high are not those of int8 */
  qcc_neon_output saturation;
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier, *scale;
} qcc_conv_image;

/* Clamp and store the bytes of `rows` pixels of up to 4 * vectors channels. */
QCC_INLINE void qcc_store_tile(const int rows, const int vectors, const qcc_conv_image *image, int8x16_t *y,
                               int8_t *output) {
  if (image->clamps) {
    QCC_UNROLL
    for (int r = 0; r < rows; ++r) {
      y[r] = vminq_s8(vmaxq_s8(y[r], image->saturation.low), image->saturation.high);
    }
  }
  const ptrdiff_t step = image->output_step;
  if (image->channels == 4 * vectors) {
    QCC_UNROLL
    for (int r = 0; r < rows; ++r, output += step) {
      qcc_store_bytes(output, y[r], 4 * vectors);
    }
  } else {
    QCC_UNROLL
    for (int r = 0; r < rows; ++r, output += step) {
      qcc_store_few(output, y[r], image->channels);
    }
  }
}

/* `lines` lines of `width` output pixels, for one block of 4 * vectors output channels. */
typedef void qcc_conv_block(int32_t vectors, const qcc_conv_image *image, const int8_t *start, const int8_t *skip,
                            int8_t *output, int32_t width, int32_t lines);

/* All images, all blocks of 16 output channels. `taps` of a run make a group; the constants of a channel are there `copies`
 * times. */
QCC_INLINE void qcc_conv_blocks(const int32_t taps, const int32_t copies, qcc_conv_block *block,
                                const qcc_neon_conv2d_params *p, const int8_t *input, const int8_t *skip,
                                const int8_t *weights, const int32_t *bias, const int32_t *skip_multiplier,
                                const int32_t *scale, int8_t *output, int8_t *workspace) {
  const int32_t height = (p->output_height - 1) * p->stride_height + (p->kernel_height - 1) * p->dilation_height + 1;
  const int32_t reach = (p->output_width - 1) * p->stride_width + (p->kernel_width - 1) * p->dilation_width + 1;
  const int joined = p->dilation_width == 1;
  const int32_t run = (joined ? p->kernel_width : 1) * p->input_channels;
  const int copied = run < 16 || p->pad_top > 0 || p->pad_left > 0 || height > p->input_height || reach > p->input_width;
  const int32_t width = copied ? reach : p->input_width; /* of the image that the taps see */
  const ptrdiff_t line = (ptrdiff_t)width * p->input_channels;
  int32_t rows = p->output_height, columns = p->output_width;
  if (p->stride_height == 1 && p->stride_width == 1 && p->kernel_height == 1 && p->kernel_width == 1 && width == columns) {
    columns *= rows;
    rows = 1;
  }
  qcc_conv_image image;
  image.pixel = (ptrdiff_t)p->stride_width * p->input_channels;
  image.row = p->stride_height * line;
  image.runs = joined ? 1 : p->kernel_width;
  image.all_runs = image.runs * p->kernel_height;
  image.chunks = run / 16;
  image.groups = (run % 16 + taps - 1) / taps;
  image.run_step = (ptrdiff_t)p->dilation_width * p->input_channels;
  image.line_step = p->dilation_height * line - image.runs * image.run_step;
  image.tail = run < 16 ? taps * image.groups - 16 : run - 16;
  image.output_step = p->output_step;
  image.output_row = (ptrdiff_t)p->output_step * columns;
  image.clamps = p->low > -128 || p->high < 127;
  image.saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  const ptrdiff_t groups = (ptrdiff_t)image.all_runs * (16 / taps * image.chunks + image.groups);
  for (int32_t n = 0; n < p->batch; ++n) {
    const int8_t *from = input + (ptrdiff_t)n * p->input_height * p->input_width * p->input_channels;
    const ptrdiff_t first = (ptrdiff_t)n * p->output_height * p->output_width * p->output_step;
    if (copied) {
      qcc_pad(p, from, workspace + 16, height, reach);
      from = workspace + 16;
    }
    image.weights = weights;
    for (int32_t o = 0; o < p->output_channels; o += 16) {
      const int32_t channels = p->output_channels - o < 16 ? p->output_channels - o : 16;
      const int32_t vectors = (channels + 3) / 4;
      image.channels = channels;
      image.bias = bias + copies * o;
      image.skip_multiplier = skip_multiplier ? skip_multiplier + copies * o : NULL;
      image.scale = scale + 2 * copies * o;
      block(vectors, &image, from, skip ? skip + first + o : NULL, output + first + o, columns, rows);
      image.weights += groups * vectors * 4 * taps;
    }
  }
}

#endif
