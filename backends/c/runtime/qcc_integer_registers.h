/* Included first by kernels that handle 64-bit integers: for Arm, gcc would move these through floating-point registers,
 * which firmware may not have switched on. */
#ifndef QCC_INTEGER_REGISTERS_H
#define QCC_INTEGER_REGISTERS_H

#if defined(__arm__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("general-regs-only")
#endif

#endif
