/* s8_table_neon: any function of one int8: output[i] = table[input[i] + 128].
 *
 * input, output: int8[rows]; they may be the same. table: int8[256], which lies in 16 registers of 64-bit Arm.
 * Reference: Table.int_ref.
 */
#include "qcc_neon.h"

QCC_INLINE int8x16x4_t quarter(const int8_t *table, const int part) {
  int8x16x4_t x;
  qcc_load_vectors(4, x.val, table + 64 * part);
  return x;
}

void qcc_s8_table_neon(const qcc_table_params *params, const int8_t *input, const int8_t *QCC_RESTRICT table,
                       int8_t *output) {
  const int8x16x4_t t0 = quarter(table, 0), t1 = quarter(table, 1), t2 = quarter(table, 2), t3 = quarter(table, 3);
  const uint8x16_t by = vdupq_n_u8(64);
  for (int32_t i = 0; i < params->rows; i += 16) {
    const int32_t count = params->rows - i;
    uint8x16_t index = veorq_u8(vreinterpretq_u8_s8(qcc_load_bytes(input + i, count)), vdupq_n_u8(128));
    int8x16_t y = vqtbl4q_s8(t0, index);
    index = vsubq_u8(index, by); /* what is out of range leaves y as it is */
    y = vqtbx4q_s8(y, t1, index);
    index = vsubq_u8(index, by);
    y = vqtbx4q_s8(y, t2, index);
    index = vsubq_u8(index, by);
    y = vqtbx4q_s8(y, t3, index);
    qcc_store_bytes(output + i, y, count);
  }
}
