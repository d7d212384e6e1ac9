/* Marks for an engine that is called from Python. */
#include "count_marks.h"

void count_begin(void);
void count_end(void);

void count_begin(void) { COUNT_BEGIN(); }
void count_end(void) { COUNT_END(); }
