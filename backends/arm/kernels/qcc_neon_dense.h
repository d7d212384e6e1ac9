/* A dense layer on one row of activations, with requantization and a residual operand, or on rows, leaving the sums in memory;
 * over qcc_dot.
 *
 * input    int8[input_channels]
 * skip     int8[output_channels], or NULL
 * weights  int8[blocks][quads][vectors][16]: blocks of 32 output channels (8 vectors), and what is left over in blocks of 4, 2
 *          and 1 vectors, zero where there is no channel. 16 bytes are four taps of four channels, in the order of qcc_dot;
 *          the last quads are those of the 16 bytes at the end of the input, as in qcc_neon_conv2d.h
 * bias     int32[output channels rounded up to 4], the zero_points of the input and of skip folded in
 * skip_multiplier  int32[the same], or NULL
 * scale    int32[the same / 4][2][4], see qcc_neon.h
 * output   int8[output_channels], may be written over skip; or int32[rows][output_channels]
 * workspace  not used
 *
 * Of params, all but the channels, output_zero_point, low and high are those of a 1x1 convolution of one pixel.
 * Reference: Dense.int_ref, Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#ifndef QCC_NEON_DENSE_H
#define QCC_NEON_DENSE_H

#include "qcc_neon_sum.h"

typedef struct {
  const int8_t *input;
  int32_t chunks, quads; /* whole 16 bytes, and quads behind them */
  int8x16_t last;        /* with these quads at its end */
} qcc_dense_row;

QCC_INLINE qcc_dense_row qcc_dense_input(const int8_t *input, int32_t inputs) {
  qcc_dense_row row;
  row.input = input;
  row.chunks = inputs / 16;
  row.quads = (inputs % 16 + 3) / 4;
  if (inputs >= 16) {
    row.last = vld1q_s8(input + inputs - 16);
  } else {
    int8_t bytes[16] = {0};
    for (int32_t i = 0; i < inputs; ++i) {
      bytes[16 - 4 * row.quads + i] = input[i];
    }
    row.last = vld1q_s8(bytes);
  }
  return row;
}

QCC_INLINE const int8_t *qcc_dense_quad(const int vectors, int32x4_t *acc, const int8_t *w, int8x16_t x, const int lane) {
  QCC_UNROLL
  for (int v = 0; v < vectors; v += 4) {
    int8x16_t column[4];
    const int some = vectors - v < 4 ? vectors - v : 4;
    w = qcc_load_vectors(some, column, w);
    __asm__("" : "+r"(w)); /* the load itself moves w on */
    qcc_dot(some, acc + v, column, x, lane);
  }
  return w;
}

/* The sums of a block of 4 * vectors channels; returns the weights of the next one. */
QCC_INLINE const int8_t *qcc_dense_sums(const int vectors, int32x4_t *acc, const qcc_dense_row *row, const int8_t *w,
                                        const int32_t *bias) {
  QCC_UNROLL
  for (int v = 0; v < vectors; ++v) {
    acc[v] = vld1q_s32(bias + 4 * v);
  }
  const int8_t *from = row->input;
  for (int32_t k = row->chunks; k > 0; --k, from += 16) {
    const int8x16_t x = vld1q_s8(from);
    w = qcc_dense_quad(vectors, acc, w, x, 0);
    w = qcc_dense_quad(vectors, acc, w, x, 1);
    w = qcc_dense_quad(vectors, acc, w, x, 2);
    w = qcc_dense_quad(vectors, acc, w, x, 3);
  }
  if (row->quads) {
    if (row->quads == 4) {
      w = qcc_dense_quad(vectors, acc, w, row->last, 0);
    }
    if (row->quads >= 3) {
      w = qcc_dense_quad(vectors, acc, w, row->last, 1);
    }
    if (row->quads >= 2) {
      w = qcc_dense_quad(vectors, acc, w, row->last, 2);
    }
    w = qcc_dense_quad(vectors, acc, w, row->last, 3);
  }
  return w;
}

/* Where the channels from `first` on go. */
typedef struct {
  const int32_t *bias, *scale, *skip_multiplier;
  const int8_t *skip;
  int8_t *output;
  int32_t channels, clamps;
  qcc_neon_output saturation;
} qcc_dense_output;

/* One block, from channel `first` on; returns the weights of the next one. */
QCC_INLINE const int8_t *qcc_dense_block(const int vectors, const qcc_dense_row *row, const int8_t *w,
                                         const qcc_dense_output *to, int32_t first) {
  int32x4_t acc[8];
  w = qcc_dense_sums(vectors, acc, row, w, to->bias + first);
  const int32_t *scale = to->scale + 2 * first;
  const int32_t channels = to->channels - first;
  QCC_UNROLL
  for (int v = 0; v < vectors; v += 4) {
    const int some = vectors - v < 4 ? vectors - v : 4;
    const int32_t width = channels - 4 * v < 4 * some ? channels - 4 * v : 4 * some;
    if (width <= 0) {
      break;
    }
    if (to->skip) {
      qcc_add_skip(some, acc + v, qcc_load_bytes(to->skip + first + 4 * v, width), to->skip_multiplier + first + 4 * v);
    }
    int32x4_t q[4];
    QCC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int at = v + (i < some ? i : some - 1);
      q[i] = qcc_scaled(acc[at], vld1q_s32(scale + 8 * at), vld1q_s32(scale + 8 * at + 4));
    }
    const int8x16_t y = qcc_narrowed(q[0], q[1], q[2], q[3], to->clamps, to->saturation);
    qcc_store_bytes(to->output + first + 4 * v, y, width);
  }
  return w;
}

QCC_INLINE void qcc_dense(const qcc_neon_conv2d_params *p, const int8_t *input, const int8_t *skip, const int8_t *weights,
                          const int32_t *bias, const int32_t *skip_multiplier, const int32_t *scale, int8_t *output) {
  const qcc_dense_row row = qcc_dense_input(input, p->input_channels);
  const qcc_neon_output saturation = qcc_saturation(p->output_zero_point, p->low, p->high);
  const int32_t outputs = p->output_channels, clamps = p->low > -128 || p->high < 127;
  const qcc_dense_output to = {bias, scale, skip_multiplier, skip, output, outputs, clamps, saturation};
  int32_t o = 0;
  for (; outputs - o > 28; o += 32) {
    weights = qcc_dense_block(8, &row, weights, &to, o);
  }
  const int32_t left = (outputs - o + 3) / 4;
  if (left & 4) {
    weights = qcc_dense_block(4, &row, weights, &to, o);
    o += 16;
  }
  if (left & 2) {
    weights = qcc_dense_block(2, &row, weights, &to, o);
    o += 8;
  }
  if (left & 1) {
    qcc_dense_block(1, &row, weights, &to, o);
  }
}

/* Rows of sums as they are. */
QCC_INLINE void qcc_dense_accumulators(const qcc_dense_accumulator_params *p, const int8_t *input, const int8_t *weights,
                                       const int32_t *bias, int32_t *output) {
  const int32_t outputs = p->output_channels;
  for (int32_t r = 0; r < p->rows; ++r, input += p->input_channels, output += outputs) {
    const qcc_dense_row row = qcc_dense_input(input, p->input_channels);
    const int8_t *w = weights;
    int32x4_t acc[8];
    int32_t o = 0;
    for (; outputs - o > 28; o += 32) {
      w = qcc_dense_sums(8, acc, &row, w, bias + o);
      qcc_store_sums(4, output + o, acc, 16);
      qcc_store_sums(4, output + o + 16, acc + 4, outputs - o - 16);
    }
    const int32_t left = (outputs - o + 3) / 4;
    if (left & 4) {
      w = qcc_dense_sums(4, acc, &row, w, bias + o);
      qcc_store_sums(4, output + o, acc, outputs - o);
      o += 16;
    }
    if (left & 2) {
      w = qcc_dense_sums(2, acc, &row, w, bias + o);
      qcc_store_sums(2, output + o, acc, outputs - o);
      o += 8;
    }
    if (left & 1) {
      qcc_dense_sums(1, acc, &row, w, bias + o);
      qcc_store_sums(1, output + o, acc, outputs - o);
    }
  }
}

#endif
