"""What an episode and an action are: phases and budgets, spaces, random numbers. Without torch."""
