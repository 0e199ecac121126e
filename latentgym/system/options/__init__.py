"""Options as data: their types, ranges and meanings, told at the parameter or field itself."""
