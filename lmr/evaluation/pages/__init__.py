"""Pages for people: a run's report, its course, answers, groups, comparisons; and pictures for them."""
