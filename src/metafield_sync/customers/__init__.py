"""Who a customer is: our id beside Shopify's. Knows PostgreSQL only."""
