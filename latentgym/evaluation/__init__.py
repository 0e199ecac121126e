"""How a result is made: what an agent answers, what that costs, and how sure the figures are.

`evaluate` asks an agent the questions of an environment, `answers` holds its answers, `accounting`
counts what it cost, `journal` keeps both while the evaluation runs, `results` is the record at its
end; `stats` has the intervals, `ranking` the metrics of ranked answers, `overlap` the questions
that were trained on.
"""
