"""Every proxy down the same road, and one table that says how far each can be trusted."""
