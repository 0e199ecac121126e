"""Speed, side by side with the peers and with the machine's own limit, in one process."""
