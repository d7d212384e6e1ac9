/* s8_depthwise_conv2d_avx512vnni: convolution of each channel with its own filter, of any size, stride and dilation.
 *
 * input    int8[batch][input_height][input_width][channels]
 * skip     int8, shape of the output, or NULL
 * weights  int8[blocks][lines][quarters][taps along][quads][16][4], see below
 * bias     int32[blocks][16 * quarters], with -128 * sum(w) and the zero_point of the input folded in
 * skip_multiplier  int32[blocks][16 * quarters], or NULL
 * scale    float[blocks][16 * quarters]
 * output   int8[batch][output_height][output_width][channels]; may be written over skip
 *
 * A block is 64 channels, the last one what is left, in vectors of 64, 32 or 16 lanes: 4, 2 or 1 quarters of int32 sums.
 * One axis of the image is `along`, the other `across`. Of the lines that lie along, four at a time (a quad) are
 * interleaved: each dword then holds what four taps across read for one channel. `lines` lines of output share the quads,
 * as many as can: 2 of a 3x3 filter with stride 1 (rows 0 to 2 and 1 to 3 of one quad), 4 of a 5x5 filter (of two quads).
 * Their weights are shifted against each other, zeros around them. Columns go through a scratch array of the stack, so
 * that an interleaved column serves all taps along and all lines, the weights of a quarter stay in registers, and only the
 * first pass knows about padding. The sums of four vectors, requantized, are packed into one; the last pass transposes.
 *
 * Time for 64 outputs in the first-level cache, on Zen 5: 3x3 3.4 ns, with stride 2 5.5 ns, 5x5 7.6 ns; the first pass
 * takes 1.3 ns for a column (four stores), the second 2.2 ns (two pipes multiply), the third 0.3 ns. Slower: all taps
 * through pointers, in quads (7.6 and 21 ns); tiles of two rows by two pixels without scratch, weights from memory (3.7 ns
 * inside an image, 16 ns on 7x7); several pixels of few channels in one vector (a vector for each tap is interleaved).
 * Reference: Conv2d.int_ref, Add.int_ref, Requantize.int_ref.
 */
#include "qcc_avx512_lanes.h"

#define QCC_NOINLINE static __attribute__((noinline))

enum { COLUMNS = 64 }; /* interleaved columns of a block in the scratch array, times quads */

typedef struct {
  int32_t input, output, taps, stride, dilation, pad;
  ptrdiff_t read, write; /* bytes between neighbours in input and output */
} axis;

/* One block of channels. Scratch: [columns along][quads][quarters], then [vectors / 4][quarters]. */
typedef struct {
  axis across, along;
  int32_t lines, quads, quarters;
  int32_t skip_zero_point;
  __mmask64 lanes;
  __m512i pad_value; /* int8 */
  qcc_lanes_output saturation;
  const int8_t *weights;
  const int32_t *bias, *skip_multiplier;
  const float *scale;
} block;

/* Four lines of input, and the bytes from pixel to pixel: 0 for a line of padding. */
typedef struct {
  const int8_t *at[4];
  ptrdiff_t step[4];
} four_lines;

/* 64, 32 or 16 lanes. */
QCC_INLINE __m512i load_lanes(const int quarters, __mmask64 lanes, const int8_t *x) {
  return quarters == 4   ? _mm512_maskz_loadu_epi8(lanes, x)
         : quarters == 2 ? _mm512_castsi256_si512(_mm256_maskz_loadu_epi8((__mmask32)lanes, x))
                         : _mm512_castsi128_si512(_mm_maskz_loadu_epi8((__mmask16)lanes, x));
}

QCC_INLINE void store_quarters(const int quarters, const __m512i *quads, __m512i *to) {
  QCC_UNROLL
  for (int j = 0; j < 4; ++j) {
    if (quarters == 4) {
      to[j] = quads[j];
    } else if (quarters == 2) {
      _mm256_storeu_si256((__m256i *)to + j, _mm512_castsi512_si256(quads[j]));
    } else {
      _mm_storeu_si128((__m128i *)to + j, _mm512_castsi512_si128(quads[j]));
    }
  }
}

/* First pass: `count` columns of four lines, from column `first` on. `whole`: all 64 lanes are channels. */
QCC_INLINE void interleave(const int quarters, const int whole, const block *b, const four_lines *lines, int32_t first,
                           int32_t count, __m512i *to) {
  const ptrdiff_t step = (ptrdiff_t)quarters * b->quads;
  const __m512i padding = qcc_centre(b->pad_value);
  const __m512i pads[4] = {padding, padding, padding, padding};
  const __mmask64 lanes = b->lanes;
  const int32_t size = b->along.input - first < count ? b->along.input - first : count;
  int32_t i = 0;
  for (; i < count && first + i < 0; ++i, to += step) {
    store_quarters(quarters, pads, to);
  }
  const ptrdiff_t s0 = lines->step[0], s1 = lines->step[1], s2 = lines->step[2], s3 = lines->step[3];
  const int8_t *x0 = lines->at[0] + s0 * (first + i), *x1 = lines->at[1] + s1 * (first + i);
  const int8_t *x2 = lines->at[2] + s2 * (first + i), *x3 = lines->at[3] + s3 * (first + i);
  for (; i < size; ++i, to += step, x0 += s0, x1 += s1, x2 += s2, x3 += s3) {
    const int8_t *const x[4] = {x0, x1, x2, x3};
    __m512i bytes[4], quads[4];
    QCC_UNROLL
    for (int r = 0; r < 4; ++r) {
      bytes[r] = qcc_centre(whole ? _mm512_loadu_si512(x[r]) : load_lanes(quarters, lanes, x[r]));
    }
    qcc_interleave(bytes, quads);
    store_quarters(quarters, quads, to);
  }
  for (; i < count; ++i, to += step) {
    store_quarters(quarters, pads, to);
  }
}

/* Second pass, one quarter of `vectors` (4 or less) vectors. x: their first column, the next one `step` columns on. */
QCC_INLINE __m512i tile(const int quarters, const int taps, const int quads, const int step, const int vectors,
                        const __m512i *x, const __m512i *w, __m512i bias, __m512 scale, const __m512i *addends,
                        __m512i zero_point) {
  __m512i q[4];
  QCC_UNROLL
  for (int i = 0; i < vectors; ++i) {
    q[i] = addends ? _mm512_add_epi32(bias, addends[quarters * i]) : bias;
  }
  QCC_UNROLL
  for (int k = 0; k < taps * quads; ++k) {
    QCC_UNROLL
    for (int i = 0; i < vectors; ++i) {
      q[i] = _mm512_dpbusd_epi32(q[i], x[quarters * (quads * step * i + k)], w[k]);
    }
  }
  QCC_UNROLL
  for (int i = 0; i < 4; ++i) {
    q[i] = i < vectors ? _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(q[i]), scale)) : q[0];
  }
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zero_point);
  const __m512i high = vectors < 3 ? low : _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zero_point);
  return _mm512_packs_epi16(low, high);
}

/* The second pass for `count` vectors of a line. */
QCC_INLINE void sums(const int quarters, const int taps, const int quads, const int step, const block *b,
                     const __m512i *columns, const int8_t *weights, const __m512i *addends, int32_t count, __m512i *to) {
  const __m512i zero_point = b->saturation.zero_point;
  for (int j = 0; j < quarters; ++j) {
    __m512i w[10];
    QCC_UNROLL
    for (int k = 0; k < taps * quads; ++k) {
      w[k] = _mm512_loadu_si512(weights + 64 * (taps * quads * j + k));
    }
    const __m512i bias = _mm512_loadu_si512(b->bias + 16 * j);
    const __m512 scale = _mm512_loadu_ps(b->scale + 16 * j);
    const __m512i *x = columns + j, *a = addends ? addends + j : NULL;
    __m512i *y = to + j;
    int32_t left = count;
    for (; left >= 4; left -= 4, x += 4 * step * quads * quarters, a = a ? a + 4 * quarters : a, y += quarters) {
      *y = tile(quarters, taps, quads, step, 4, x, w, bias, scale, a, zero_point);
    }
    if (left == 3) {
      *y = tile(quarters, taps, quads, step, 3, x, w, bias, scale, a, zero_point);
    } else if (left == 2) {
      *y = tile(quarters, taps, quads, step, 2, x, w, bias, scale, a, zero_point);
    } else if (left == 1) {
      *y = tile(quarters, taps, quads, step, 1, x, w, bias, scale, a, zero_point);
    }
  }
}

typedef void sums_function(const block *b, const __m512i *columns, const int8_t *weights, const __m512i *addends,
                           int32_t count, __m512i *to);

#define SUMS(quarters, taps, quads, step)                                                                               \
  QCC_NOINLINE void sums_##quarters##_##taps##_##step(const block *b, const __m512i *columns, const int8_t *weights,    \
                                                      const __m512i *addends, int32_t count, __m512i *to) {             \
    sums(quarters, taps, quads, step, b, columns, weights, addends, count, to);                                         \
  }
SUMS(1, 3, 1, 1)
SUMS(1, 3, 1, 2)
SUMS(2, 3, 1, 1)
SUMS(2, 3, 1, 2)
SUMS(4, 3, 1, 1)
SUMS(4, 3, 1, 2)
SUMS(1, 5, 2, 1)
SUMS(1, 5, 2, 2)
SUMS(2, 5, 2, 1)
SUMS(2, 5, 2, 2)
SUMS(4, 5, 2, 1)
SUMS(4, 5, 2, 2)

/* The second pass for any filter. */
QCC_NOINLINE void sums_any(const block *b, const __m512i *columns, const int8_t *weights, const __m512i *addends,
                           int32_t count, __m512i *to) {
  const int32_t quarters = b->quarters, taps = b->along.taps;
  const ptrdiff_t column = (ptrdiff_t)quarters * b->quads;
  const ptrdiff_t vector = column * b->along.stride, tap = column * b->along.dilation;
  for (int32_t j = 0; j < quarters; ++j) {
    const __m512i bias = _mm512_loadu_si512(b->bias + 16 * j);
    for (int32_t v = 0; v < count; v += 4) {
      const int32_t last = count - v < 4 ? count - v - 1 : 3; /* a last vector stands for what is missing */
      const int8_t *w = weights + (ptrdiff_t)64 * taps * b->quads * j;
      const __m512i *x[4];
      __m512i q[4];
      QCC_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int32_t index = v + (i < last ? i : last);
        x[i] = columns + j + vector * index;
        q[i] = addends ? _mm512_add_epi32(bias, addends[quarters * index + j]) : bias;
      }
      for (int32_t k = 0; k < taps; ++k) {
        for (int32_t quad = 0; quad < b->quads; ++quad, w += 64) {
          QCC_UNROLL
          for (int i = 0; i < 4; ++i) {
            q[i] = _mm512_dpbusd_epi32(q[i], x[i][tap * k + (ptrdiff_t)quarters * quad], _mm512_loadu_si512(w));
          }
        }
      }
      QCC_UNROLL
      for (int i = 0; i < 4; ++i) {
        q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(q[i]), _mm512_loadu_ps(b->scale + 16 * j)));
      }
      const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), b->saturation.zero_point);
      const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), b->saturation.zero_point);
      to[v / 4 * quarters + j] = _mm512_packs_epi16(low, high);
    }
  }
}

/* Third pass: in each 128 bits of x[quarter], dword i belongs to vector i. y[i]: the channels of vector i in order. */
QCC_INLINE void transpose(const int quarters, const __m512i *x, __m512i *y) {
  if (quarters == 4) {
    const __m512i low01 = _mm512_unpacklo_epi32(x[0], x[1]), low23 = _mm512_unpacklo_epi32(x[2], x[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(x[0], x[1]), high23 = _mm512_unpackhi_epi32(x[2], x[3]);
    y[0] = _mm512_unpacklo_epi64(low01, low23);
    y[1] = _mm512_unpackhi_epi64(low01, low23);
    y[2] = _mm512_unpacklo_epi64(high01, high23);
    y[3] = _mm512_unpackhi_epi64(high01, high23);
  } else if (quarters == 2) {
    const __m512i order = _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    y[0] = _mm512_permutex2var_epi32(x[0], order, x[1]);
    y[1] = _mm512_shuffle_i64x2(y[0], y[0], 0xEE);
    y[2] = _mm512_permutex2var_epi32(x[0], _mm512_add_epi32(order, _mm512_set1_epi32(2)), x[1]);
    y[3] = _mm512_shuffle_i64x2(y[2], y[2], 0xEE);
  } else {
    y[0] = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x[0]);
    y[1] = _mm512_shuffle_i32x4(y[0], y[0], 1);
    y[2] = _mm512_shuffle_i32x4(y[0], y[0], 2);
    y[3] = _mm512_shuffle_i32x4(y[0], y[0], 3);
  }
}

QCC_INLINE void store(const int quarters, const int whole, const block *b, const __m512i *x, int32_t count, int8_t *y) {
  const __m512i low = b->saturation.low, high = b->saturation.high;
  const __mmask64 lanes = b->lanes;
  const ptrdiff_t step = b->along.write;
  for (; count > 0; count -= 4, x += quarters) {
    __m512i v[4];
    transpose(quarters, x, v);
    QCC_UNROLL
    for (int i = 0; i < 4; ++i, y += step) {
      const __m512i bytes = _mm512_min_epi8(_mm512_max_epi8(v[i], low), high);
      if (i >= count) {
        return;
      }
      if (whole) {
        _mm512_storeu_si512(y, bytes);
      } else if (quarters == 4) {
        _mm512_mask_storeu_epi8(y, lanes, bytes);
      } else if (quarters == 2) {
        _mm256_mask_storeu_epi8(y, (__mmask32)lanes, _mm512_castsi512_si256(bytes));
      } else {
        _mm_mask_storeu_epi8(y, (__mmask16)lanes, _mm512_castsi512_si128(bytes));
      }
    }
  }
}

typedef void interleave_function(const block *b, const four_lines *lines, int32_t first, int32_t count, __m512i *to);
typedef void store_function(const block *b, const __m512i *x, int32_t count, int8_t *y);

#define ENDS(quarters, whole)                                                                                           \
  QCC_NOINLINE void interleave_##quarters##_##whole(const block *b, const four_lines *lines, int32_t first,             \
                                                    int32_t count, __m512i *to) {                                       \
    interleave(quarters, whole, b, lines, first, count, to);                                                            \
  }                                                                                                                     \
  QCC_NOINLINE void store_##quarters##_##whole(const block *b, const __m512i *x, int32_t count, int8_t *y) {            \
    store(quarters, whole, b, x, count, y);                                                                             \
  }
ENDS(1, 0)
ENDS(2, 0)
ENDS(4, 0)
ENDS(4, 1)

/* (skip - zero_point) * multiplier of `count` vectors. */
QCC_NOINLINE void skip_addends(const block *b, const int8_t *skip, int32_t count, __m512i *to) {
  const __m512i zero_point = _mm512_set1_epi32(b->skip_zero_point);
  for (; count > 0; --count, skip += b->along.write) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(b->lanes, skip);
    const __m512i copies[4] = {bytes, bytes, bytes, bytes};
    __m512i quads[4];
    qcc_interleave(copies, quads);
    if (b->quarters == 4) {
      store_quarters(4, quads, to);
    } else if (b->quarters == 2) {
      store_quarters(2, quads, to);
    } else {
      store_quarters(1, quads, to);
    }
    for (int32_t j = 0; j < b->quarters; ++j, ++to) {
      const __m512i x = _mm512_sub_epi32(_mm512_srai_epi32(*to, 24), zero_point);
      *to = _mm512_mullo_epi32(x, _mm512_loadu_si512(b->skip_multiplier + 16 * j));
    }
  }
}

static sums_function *choose_sums(const block *b) {
  static sums_function *const chosen[2][3][2] = {
      {{sums_1_3_1, sums_1_3_2}, {sums_2_3_1, sums_2_3_2}, {sums_4_3_1, sums_4_3_2}},
      {{sums_1_5_1, sums_1_5_2}, {sums_2_5_1, sums_2_5_2}, {sums_4_5_1, sums_4_5_2}},
  };
  const int32_t taps = b->along.taps, stride = b->along.stride;
  if (b->along.dilation > 1 || stride > 2 || !((taps == 3 && b->quads == 1) || (taps == 5 && b->quads == 2))) {
    return sums_any;
  }
  return chosen[taps == 5][b->quarters / 2][stride - 1];
}

/* Lines y .. y + lines - 1 of the output, `count` vectors from x on. */
static void compute(const block *b, interleave_function *interleave_lines, sums_function *sum, store_function *store_line,
                    const int8_t *input, const int8_t *skip, int8_t *output, int32_t y, int32_t x, int32_t count) {
  __m512i columns[4 * COLUMNS], packed[COLUMNS], addends[4 * COLUMNS];
  const int32_t reach = b->across.taps - 1 + (b->lines - 1) * b->across.stride;
  const int32_t span = (count - 1) * b->along.stride + (b->along.taps - 1) * b->along.dilation + 1;
  for (int32_t q = 0; q < b->quads; ++q) {
    four_lines lines;
    for (int32_t r = 0; r < 4; ++r) {
      const int32_t tap = 4 * q + r < reach ? 4 * q + r : reach; /* beyond, weights are zero */
      const int32_t line = y * b->across.stride - b->across.pad + tap * b->across.dilation;
      const int inside = line >= 0 && line < b->across.input;
      lines.at[r] = inside ? input + b->across.read * line : (const int8_t *)&b->pad_value;
      lines.step[r] = inside ? b->along.read : 0;
    }
    interleave_lines(b, &lines, x * b->along.stride - b->along.pad, span, columns + (ptrdiff_t)b->quarters * q);
  }
  const int32_t left = b->across.output - y, taps = b->along.taps * b->quads * b->quarters;
  for (int32_t r = 0; r < b->lines && r < left; ++r) {
    const ptrdiff_t at = b->across.write * (y + r) + b->along.write * x;
    if (skip) {
      skip_addends(b, skip + at, count, addends);
    }
    sum(b, columns, b->weights + (ptrdiff_t)64 * taps * r, skip ? addends : NULL, count, packed);
    store_line(b, packed, count, output + at);
  }
}

/* All pixels of a block. */
static void compute_block(const block *b, const int8_t *input, const int8_t *skip, int8_t *output) {
  static interleave_function *const interleaves[] = {interleave_1_0, interleave_2_0, interleave_4_0, interleave_4_1};
  static store_function *const stores[] = {store_1_0, store_2_0, store_4_0, store_4_1};
  const int32_t kind = b->lanes == qcc_first_lanes(64) ? 3 : b->quarters / 2;
  const int32_t reach = (b->along.taps - 1) * b->along.dilation;
  const int32_t room = (COLUMNS / b->quads - reach - 1) / b->along.stride + 1;
  const int32_t most = room < b->along.output && room > 4 ? room & ~3 : room;
  sums_function *const sum = choose_sums(b);
  for (int32_t x = 0; x < b->along.output; x += most) {
    const int32_t left = b->along.output - x;
    for (int32_t y = 0; y < b->across.output; y += b->lines) {
      compute(b, interleaves[kind], sum, stores[kind], input, skip, output, y, x, left < most ? left : most);
    }
  }
}

void qcc_s8_depthwise_conv2d_avx512vnni(const qcc_avx512_depthwise_params *params, const int8_t *QCC_RESTRICT input,
                                        const int8_t *skip, const int8_t *QCC_RESTRICT weights,
                                        const int32_t *QCC_RESTRICT bias, const int32_t *QCC_RESTRICT skip_multiplier,
                                        const float *QCC_RESTRICT scale, int8_t *output) {
  const qcc_avx512_depthwise_params *p = params;
  const int32_t channels = p->channels;
  const ptrdiff_t row = (ptrdiff_t)p->input_width * channels, output_row = (ptrdiff_t)p->output_width * channels;
  const axis height = {p->input_height, p->output_height,     p->kernel_height, p->stride_height,
                       p->dilation_height, p->pad_top, row, output_row};
  const axis width = {p->input_width, p->output_width, p->kernel_width, p->stride_width,
                      p->dilation_width, p->pad_left, channels, channels};
  block b;
  b.across = p->along_height ? width : height;
  b.along = p->along_height ? height : width;
  b.quads = (b.across.taps + 3) / 4;
  b.lines = b.across.dilation == 1 ? (4 * b.quads - b.across.taps) / b.across.stride + 1 : 1;
  b.skip_zero_point = p->skip_zero_point;
  b.pad_value = _mm512_set1_epi8((int8_t)p->pad_value);
  b.saturation = qcc_lanes_saturation(p->output_zero_point, p->low, p->high);
  for (int32_t n = 0; n < p->batch; ++n) {
    for (int32_t c = 0; c < channels; c += 64) {
      const int32_t left = channels - c;
      const ptrdiff_t at = output_row * p->output_height * n + c;
      b.quarters = left > 32 ? 4 : left > 16 ? 2 : 1;
      b.lanes = qcc_first_lanes(left);
      b.weights = weights + (ptrdiff_t)4 * b.lines * b.along.taps * b.quads * c;
      b.bias = bias + c;
      b.skip_multiplier = skip_multiplier ? skip_multiplier + c : NULL;
      b.scale = scale + c;
      compute_block(&b, input + row * p->input_height * n + c, skip ? skip + at : NULL, output + at);
    }
  }
}
