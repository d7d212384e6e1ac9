/* How functions over vectors are compiled: always inlined, never inlined, loops of constant length unrolled. */
#ifndef QCC_VECTORS_H
#define QCC_VECTORS_H

#define QCC_INLINE static inline __attribute__((always_inline))
#define QCC_RARE static __attribute__((noinline, unused))
#ifdef __clang__
#define QCC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QCC_UNROLL _Pragma("GCC unroll 64")
#endif

#endif
