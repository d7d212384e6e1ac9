/* 32-bit Arm: the intrinsics of 64-bit NEON that the kernels use and 32-bit NEON lacks, in terms of those it has.
 *
 * There are 16 vector registers, half as many. The high half of a vector is a register of its own, so `high` costs nothing.
 */
#ifndef QCC_NEON_32_H
#define QCC_NEON_32_H

#include <arm_neon.h>

#define QCC_NEON_32(type) static inline __attribute__((always_inline, unused)) type

QCC_NEON_32(int16x8_t) vmull_high_s8(int8x16_t a, int8x16_t b) { return vmull_s8(vget_high_s8(a), vget_high_s8(b)); }

QCC_NEON_32(int16x8_t) vmlal_high_s8(int16x8_t acc, int8x16_t a, int8x16_t b) {
  return vmlal_s8(acc, vget_high_s8(a), vget_high_s8(b));
}

QCC_NEON_32(int16x8_t) vaddw_high_s8(int16x8_t acc, int8x16_t a) { return vaddw_s8(acc, vget_high_s8(a)); }

QCC_NEON_32(int32x4_t) vaddw_high_s16(int32x4_t acc, int16x8_t a) { return vaddw_s16(acc, vget_high_s16(a)); }

QCC_NEON_32(int16x8_t) vmovl_high_s8(int8x16_t a) { return vmovl_s8(vget_high_s8(a)); }

QCC_NEON_32(int32x4_t) vmovl_high_s16(int16x8_t a) { return vmovl_s16(vget_high_s16(a)); }

QCC_NEON_32(int8x16_t) vqmovn_high_s16(int8x8_t low, int16x8_t high) { return vcombine_s8(low, vqmovn_s16(high)); }

QCC_NEON_32(int16x8_t) vraddhn_high_s32(int16x4_t low, int32x4_t a, int32x4_t b) {
  return vcombine_s16(low, vraddhn_s32(a, b));
}

#endif
