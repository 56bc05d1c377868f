"""Records as tables, as a page and as DataFrames."""

from scannet_css.leaderboard.frame import dataframe, dataframe_of_steps

__all__ = ["dataframe", "dataframe_of_steps"]
