/* Blocks of memory for plans: at the beginning of a line, and where they are large of a huge page. */
#ifndef FC_BLOCK_H
#define FC_BLOCK_H
#include <stddef.h>

void *fc_block(size_t bytes); /* NULL: there is no memory */
void fc_block_free(void *block);
#endif
