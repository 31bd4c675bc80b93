"""What is measured once about a network and a machine, and what follows for a budget."""
