-- Access tokens that expire, and how a shop is installed.
select 1;
