/* Blocks of memory for plans: on the border of a page, and where they are large of a huge page. */
#ifndef FC_BLOCK_H
#define FC_BLOCK_H
#include <stddef.h>

void *fc_block(size_t bytes); /* NULL: there is no memory */
void fc_block_free(void *block);
#endif
