/* s8_lookup_avx512: functions of one byte, or of the difference of two, as tables in registers.
 *
 *   table         output[i] = table[input[i] + 128]                     table: int8[256]
 *   softmax_pair  output[r][0] = table[input[r][0] - input[r][1] + 255],
 *                 output[r][1] = table[input[r][1] - input[r][0] + 255]   table: int8[512], the last one unused
 *
 * input, output: int8[rows] or int8[rows][2]; they may be the same. vpermi2w looks up words, 64 of them, for each of 32
 * lanes: so the bits of an index choose, from low to high, the byte of a word, the word, and the pair of registers.
 * Reference: Table.int_ref; Softmax.int_ref over two elements, which depends on their difference only.
 */
#include "qcc_avx512_lanes.h"

/* Bytes 2 i + (index & 1) of the table's words i = index / 2 % 128, of 32 indices (16 bits, higher bits are ignored). */
QCC_INLINE __m512i find_word(const __m512i *table, __m512i index) {
  const __m512i word = _mm512_srli_epi16(index, 1);
  const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
  const __m512i low = _mm512_permutex2var_epi16(table[0], word, table[1]);
  const __m512i high = _mm512_permutex2var_epi16(table[2], word, table[3]);
  return _mm512_mask_blend_epi16(upper, low, high);
}

/* Two results for each word: that of `even` in its low byte, that of `odd` in its high byte. */
QCC_INLINE __m512i join(__m512i even_word, __m512i even, __m512i odd_word, __m512i odd) {
  const __m512i one = _mm512_set1_epi16(1);
  const __m512i low = _mm512_mask_srli_epi16(even_word, _mm512_test_epi16_mask(even, one), even_word, 8);
  const __m512i high = _mm512_mask_slli_epi16(odd_word, _mm512_testn_epi16_mask(odd, one), odd_word, 8);
  return _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAAu, low, high);
}

void qcc_s8_table_avx512(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                         int8_t *output) {
  const __m512i words[4] = {_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64), _mm512_loadu_si512(table + 128),
                            _mm512_loadu_si512(table + 192)};
  for (int32_t i = 0; i < params->rows; i += 64) {
    const __mmask64 lanes = qcc_first_lanes(params->rows - i);
    const __m512i even = qcc_centre(_mm512_maskz_loadu_epi8(lanes, input + i));
    const __m512i odd = _mm512_srli_epi16(even, 8);
    _mm512_mask_storeu_epi8(output + i, lanes, join(find_word(words, even), even, find_word(words, odd), odd));
  }
}

/* find_word in a table of 512 bytes. */
QCC_INLINE __m512i find_word_of_pair(const __m512i *table, __m512i index) {
  const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(256));
  return _mm512_mask_blend_epi16(upper, find_word(table, index), find_word(table + 4, index));
}

void qcc_s8_softmax_pair_avx512(const qcc_softmax_params *params, const int8_t *input,
                                const int8_t *QCC_RESTRICT table, int8_t *output) {
  const __m512i zero = _mm512_set1_epi16(255);
  __m512i words[8];
  QCC_UNROLL
  for (int i = 0; i < 8; ++i) {
    words[i] = _mm512_loadu_si512(table + 64 * i);
  }
  for (ptrdiff_t i = 0; i < params->rows; i += 32) {
    const __mmask64 lanes = params->rows - i < 32 ? qcc_first_lanes(2 * (int32_t)(params->rows - i)) : ~(__mmask64)0;
    const __m512i x = _mm512_maskz_loadu_epi8(lanes, input + 2 * i);
    const __m512i first = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), second = _mm512_srai_epi16(x, 8);
    const __m512i even = _mm512_add_epi16(_mm512_sub_epi16(first, second), zero);
    const __m512i odd = _mm512_add_epi16(_mm512_sub_epi16(second, first), zero);
    const __m512i y = join(find_word_of_pair(words, even), even, find_word_of_pair(words, odd), odd);
    _mm512_mask_storeu_epi8(output + 2 * i, lanes, y);
  }
}
