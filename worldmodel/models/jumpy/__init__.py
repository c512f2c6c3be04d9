"""Models whose cost of a query does not depend on its distance: JUMP, GQN, BADJ."""
