"""What stands between the library and the machine.

`bounded` runs work on hostile input in a process with limits, `sealed` checks files that were
written before, `lock` keeps two processes from one folder, `terminal` and `console` show text on a
terminal, `hub` tells whether the Hugging Face hub can be had, `plugins` imports what other packages
announce or the user names, `options` holds what people say to types and ranges.
"""
